"""Messages between the server and its gateway processes: MessagePack, each message after its length.

Each process has one end of a socket pair, so the exit of a process closes the channel at once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec

from xinference.errors import Problem, known_code
from xinference.gateway.crash_memory import RequestKey
from xinference.keys.key import Key
from xinference.protocol.errors import Refusal
from xinference.records.record import Record
from xinference.routing.active_requests import ActiveRequest
from xinference.routing.table import Route

# -- from the server --------------------------------------------------------------------------------------------


class Configuration(msgspec.Struct, tag=True):
    """The first message."""

    settings: dict[str, Any]
    management: str
    """Path of the socket on which the server answers the management API."""
    traces: bool = False
    """Whether requests are traced."""


class TableUpdate(msgspec.Struct, tag=True):
    """All routes and keys; they replace those of the previous update."""

    version: int
    routes: dict[str, Route]
    listing: bytes
    keys: list[Key]
    keys_required: bool


class Serve(msgspec.Struct, tag=True):
    """Accept requests. From now on the server waits for this process before it stops a replica."""


class Stop(msgspec.Struct, tag=True):
    """Accept no more requests, finish the answers in flight, exit; the second time, end the answers at once."""


class ForgetReplica(msgspec.Struct, tag=True):
    """Delete the records of a replica that has exited."""

    replica_id: str


class Suspects(msgspec.Struct, tag=True):
    """Requests that were at an engine when it crashed, each with the crashes to add to those of before."""

    crashes: list[tuple[RequestKey, int]]


class AbortRequests(msgspec.Struct, tag=True):
    """Abort the requests of this id; the answer is an `AbortResult`."""

    number: int
    model: str
    request_id: str


class ReportRequest(msgspec.Struct, tag=True):
    """Send a `Report`."""

    number: int
    with_active: bool = False
    """Whether the report has the requests that have not ended."""


class AbortRecord(msgspec.Struct, tag=True):
    """Abort the request with this id of a record; the answer is an `AbortResult`."""

    number: int
    request_id: str


class Ready(msgspec.Struct, tag=True):
    """Answers `EnsureReady`: the model has a target, which is not stopped before `ReadyAck`."""

    number: int


class Grant(msgspec.Struct, tag=True):
    """Answers `TakeRequest`, `TakePermit` and `TakeKeyPermit`: within the limit."""

    number: int


class Rejection(msgspec.Struct, tag=True):
    """Answers a request of a process with the error for its client."""

    number: int
    code: str
    status: int
    cause: str
    hint: str | None
    headers: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, number: int, problem: Problem) -> Rejection:
        headers = problem.headers if isinstance(problem, Refusal) else ()
        return cls(number, problem.code, problem.status, problem.cause, problem.hint, headers)

    @property
    def refusal(self) -> Refusal:
        return Refusal(known_code(self.code), self.cause, status=self.status, hint=self.hint, headers=self.headers)


# -- to the server ----------------------------------------------------------------------------------------------


class TableAck(msgspec.Struct, tag=True):
    """Acknowledges `TableUpdate`: this version is in use."""

    version: int


class EnsureReady(msgspec.Struct, tag=True):
    """Call `Router.ensure_ready`; the answer is `Ready` or `Rejection`."""

    number: int
    uid: str
    seconds: float


class ReadyAck(msgspec.Struct, tag=True):
    """Acknowledges `Ready(number)`: the waiting request is in `in_flight`, or was cancelled."""

    number: int
    in_flight: dict[str, int]
    """Requests in flight by replica."""


class TakeRequest(msgspec.Struct, tag=True):
    """Call `Limits.take_request`; the answer is `Grant` or `Rejection`."""

    number: int
    key: Key
    now: float


class GiveBackRequest(msgspec.Struct, tag=True):
    """Call `Limits.give_back_request`; there is no answer."""

    key: Key
    now: float


class SpendTokens(msgspec.Struct, tag=True):
    """Call `Limits.spend_tokens`; there is no answer."""

    key: Key
    tokens: int
    now: float


class CrashNote(msgspec.Struct, tag=True):
    """Call `CrashReports.note_crash`; the answer is `Suspects`, to all processes."""

    replica_id: str
    key: RequestKey
    in_flight: int


class LeftNote(msgspec.Struct, tag=True):
    """Call `CrashReports.note_left`; there is no answer."""

    replica_id: str
    key: RequestKey


class TakePermit(msgspec.Struct, tag=True):
    """Call `Permits.take`; the answer is `Grant` or `Rejection`, and `Cancel` returns the permit."""

    number: int
    uid: str
    maximum: int


class TakeKeyPermit(msgspec.Struct, tag=True):
    """See `Permits.take_of_key`; the answer is `Grant` or `Rejection`, and `Cancel` returns the permit."""

    number: int
    key: Key
    maximum: int


class Cancel(msgspec.Struct, tag=True):
    """Cancels `EnsureReady(number)`, or returns the permit of `TakePermit(number)` or `TakeKeyPermit(number)`."""

    number: int


class AbortResult(msgspec.Struct, tag=True):
    """Answers `AbortRequests` and `AbortRecord`."""

    number: int
    aborted: bool
    """Whether the process had a request of this id."""


class Report(msgspec.Struct, tag=True):
    """Answers `ReportRequest`. The key uses are those since the last report."""

    number: int
    in_flight: dict[str, int]
    """Requests in flight by replica."""
    last_ends: dict[str, float]
    """Time at which a replica's last request ended, by `time.monotonic`, which all processes of a machine share."""
    last_bytes: dict[str, float]
    """Time at which the last byte of each engine arrived, by base URL and the same clock."""
    key_uses: dict[str, float]
    records: list[Record]
    """The records since the last report and the last `Records`."""
    active: list[ActiveRequest] | None = None
    """None: they were not requested."""
    affinity: list[tuple[str, str, int]] = []
    """See `Balancer.take_affinity`."""


class Records(msgspec.Struct, tag=True):
    """Records before the next report, because there are many."""

    records: list[Record]


ToWorker = (
    Configuration
    | TableUpdate
    | Serve
    | Stop
    | ForgetReplica
    | Suspects
    | AbortRequests
    | AbortRecord
    | ReportRequest
    | Ready
    | Grant
    | Rejection
)
ToServer = (
    TableAck
    | EnsureReady
    | ReadyAck
    | TakeRequest
    | GiveBackRequest
    | SpendTokens
    | CrashNote
    | LeftNote
    | TakePermit
    | TakeKeyPermit
    | Cancel
    | AbortResult
    | Report
    | Records
)
Message = TypeVar("Message")

# -- the channel ------------------------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """The plain value of what a message may contain."""
    if isinstance(value, Problem):
        return value.to_dict()
    raise NotImplementedError(f"A message can't contain a {type(value)}.")


def from_plain(kind: type, value: Any) -> Any:
    """The reverse of `to_plain`."""
    if kind is Problem:
        return Problem.from_dict(value)
    raise NotImplementedError(f"A message can't contain a {kind}.")


_encode = msgspec.msgpack.Encoder(enc_hook=to_plain).encode
FROM_SERVER: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker, dec_hook=from_plain)
FROM_WORKER: msgspec.msgpack.Decoder[ToServer] = msgspec.msgpack.Decoder(ToServer, dec_hook=from_plain)


def packed(message: ToWorker | ToServer) -> bytes:
    """The bytes of a message on the channel."""
    body = _encode(message)
    return len(body).to_bytes(4, "big") + body


class Channel(Generic[Message]):
    """One end of the socket pair."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decoder: msgspec.msgpack.Decoder[Message]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder

    @classmethod
    async def open(cls, end: socket.socket, decoder: msgspec.msgpack.Decoder[Message]) -> Channel[Message]:
        """Take over `end` of a socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=end), decoder)

    def send(self, message: ToWorker | ToServer | bytes) -> None:
        """Send a message, or packed bytes, in the order of the calls; dropped if the channel is closed."""
        if not self._writer.is_closing():
            self._writer.write(message if isinstance(message, bytes) else packed(message))

    async def messages(self) -> AsyncIterator[Message]:
        """The messages of the other process, until it closes its end."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int.from_bytes(await self._reader.readexactly(4), "big")
                yield self._decoder.decode(await self._reader.readexactly(length))

    def close(self) -> None:
        """Close this end."""
        self._writer.close()

    async def end(self) -> None:
        """Close this end once everything is sent."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
