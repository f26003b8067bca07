"""What the server and its gateway processes say to each other: MessagePack, each message after its length.

Each of them holds one end of a pair of sockets, so whoever dies is missed at once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec

from xinference.errors import Problem
from xinference.gateway.metrics import Counted
from xinference.keys.key import Key
from xinference.protocol.errors import Refusal
from xinference.routing.table import Route

# -- from the server --------------------------------------------------------------------------------------------


class Begin(msgspec.Struct, tag=True):
    """The first message."""

    settings: dict[str, Any]
    management: str
    """Path of the socket where the server itself answers."""


class Table(msgspec.Struct, tag=True):
    """All routes and keys; the next one replaces them all."""

    version: int
    routes: dict[str, Route]
    listing: bytes
    keys: list[Key]
    keys_required: bool


class Serve(msgspec.Struct, tag=True):
    """From now on requests may be taken: the server waits for this process before it takes a replica away."""


class Stop(msgspec.Struct, tag=True):
    """Take no more requests, send the answers that are on their way, end."""


class Forget(msgspec.Struct, tag=True):
    """A replica is gone for good."""

    replica_id: str


class Abort(msgspec.Struct, tag=True):
    """End the requests of this id."""

    number: int
    model: str
    request_id: str


class Report(msgspec.Struct, tag=True):
    """Say what is going on."""

    number: int


class Ready(msgspec.Struct, tag=True):
    """The model that was asked for has a target; it stays until this is acknowledged."""

    number: int


class Granted(msgspec.Struct, tag=True):
    """What was asked for may be."""

    number: int


class Refused(msgspec.Struct, tag=True):
    """What was asked for may not be."""

    number: int
    code: str
    status: int
    cause: str
    hint: str | None
    headers: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, number: int, problem: Problem) -> Refused:
        headers = problem.headers if isinstance(problem, Refusal) else ()
        return cls(number, problem.code, problem.status, problem.cause, problem.hint, headers)

    @property
    def refusal(self) -> Refusal:
        return Refusal(self.code, self.status, self.cause, hint=self.hint, headers=self.headers)


# -- to the server ----------------------------------------------------------------------------------------------


class Seen(msgspec.Struct, tag=True):
    """This table is the one in use."""

    version: int


class EnsureReady(msgspec.Struct, tag=True):
    """See `Router.ensure_ready`; the answer is `Ready` or `Refused`."""

    number: int
    uid: str
    seconds: float


class Taken(msgspec.Struct, tag=True):
    """The `Ready` of this number has been used, if it could be: the request is among these counts."""

    number: int
    at: dict[str, int]


class TakeRequest(msgspec.Struct, tag=True):
    """See `Limits.take_request`; the answer is `Granted` or `Refused`."""

    number: int
    key: Key
    now: float


class SpendTokens(msgspec.Struct, tag=True):
    """See `Limits.spend_tokens`."""

    key: Key
    tokens: int
    now: float


class TakePermit(msgspec.Struct, tag=True):
    """See `Permits.take`; the answer is `Granted` or `Refused`."""

    number: int
    uid: str
    most: int


class Cancel(msgspec.Struct, tag=True):
    """What was asked for by this number is not wanted any more; a permit is given back."""

    number: int


class Aborted(msgspec.Struct, tag=True):
    """Whether there was a request to be aborted."""

    number: int
    found: bool


class Reported(msgspec.Struct, tag=True):
    """What is going on; what is counted here is counted once."""

    number: int
    at: dict[str, int]
    """Requests by replica."""
    ended: dict[str, float]
    """When a replica's last one ended, by `time.monotonic`: that clock is one for all processes."""
    keys_used: dict[str, float]
    counted: Counted


ToWorker = Begin | Table | Serve | Stop | Forget | Abort | Report | Ready | Granted | Refused
ToServer = Seen | EnsureReady | Taken | TakeRequest | SpendTokens | TakePermit | Cancel | Aborted | Reported
Message = TypeVar("Message")

# -- the link ---------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, Problem):
        return value.to_dict()
    raise NotImplementedError(f"{type(value)} has no place in a message.")


def _typed(kind: type, value: Any) -> Any:
    if kind is Problem:
        return Problem.from_dict(value)
    raise NotImplementedError(f"{kind} has no place in a message.")


_encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
FROM_SERVER: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker, dec_hook=_typed)
FROM_WORKER: msgspec.msgpack.Decoder[ToServer] = msgspec.msgpack.Decoder(ToServer, dec_hook=_typed)


def packed(message: ToWorker | ToServer) -> bytes:
    """A message as it is sent."""
    body = _encode(message)
    return len(body).to_bytes(4, "big") + body


class Link(Generic[Message]):
    """One end."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decoder: msgspec.msgpack.Decoder[Message]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder

    @classmethod
    async def open(cls, end: socket.socket, decoder: msgspec.msgpack.Decoder[Message]) -> Link[Message]:
        """Take over `end` of a pair of sockets."""
        return cls(*await asyncio.open_unix_connection(sock=end), decoder)

    def send(self, message: ToWorker | ToServer | bytes) -> None:
        """Send it after those before it; to one that is gone, nothing."""
        if not self._writer.is_closing():
            self._writer.write(message if isinstance(message, bytes) else packed(message))

    async def messages(self) -> AsyncIterator[Message]:
        """What the other says, until it is gone."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int.from_bytes(await self._reader.readexactly(4), "big")
                yield self._decoder.decode(await self._reader.readexactly(length))

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
