"""The server's handle of one gateway process: sends messages, answers questions, records the process's permits."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from xinference.errors import Problem, defect
from xinference.gateway.crash_memory import CrashReports
from xinference.gateway.rate_limits import LocalQuota
from xinference.gateway.workers.ipc import (
    FROM_WORKER,
    AbortRecord,
    AbortRequests,
    AbortResult,
    Cancel,
    Channel,
    CrashNote,
    EnsureReady,
    GiveBackRequest,
    Grant,
    LeftNote,
    Ready,
    ReadyAck,
    Records,
    Rejection,
    Report,
    ReportRequest,
    Serve,
    SpendTokens,
    TableAck,
    TakeKeyPermit,
    TakePermit,
    TakeRequest,
    ToServer,
)
from xinference.records.record import Record
from xinference.routing.active_requests import ActiveRequest
from xinference.routing.interfaces import Router

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedState:
    """The objects that the handles of all gateway processes share."""

    router: Router
    quota: LocalQuota
    on_report: Callable[[Report], None]
    """Called with each report."""
    on_records: Callable[[list[Record]], None]
    """Called with records that precede a report."""
    on_serving: Callable[[], None]
    """Called when a process has the routing table and may accept requests."""
    crashes: CrashReports
    """Gets the reports of all processes."""


@dataclass
class WorkerHandle:
    """One gateway process, the channel to it, and the last reported state of the process."""

    process: subprocess.Popen[bytes]
    channel: Channel[ToServer]
    shared: SharedState
    started: float = field(default_factory=time.monotonic)
    serving: bool = False
    """Whether the process may accept requests; until then, no change waits for the process."""
    table_version: int = 0
    """The version of the table that the process uses."""
    in_flight: dict[str, int] = field(default_factory=dict)
    """Requests in flight by replica."""
    last_bytes: dict[str, float] = field(default_factory=dict)
    """See `Report.last_bytes`."""
    active: list[ActiveRequest] = field(default_factory=list)
    """The requests of the process that had not ended at the last report of them."""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _answers: dict[int, asyncio.Future[bool]] = field(default_factory=dict)
    """The server's questions that the process has not answered yet."""
    _ensuring: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    """The process's `EnsureReady` questions that are not answered yet."""
    _pending_targets: dict[int, frozenset[str]] = field(default_factory=dict)
    """Replicas of answered questions whose requests are not in the process's counts yet."""
    _permits: dict[int, Callable[[], None]] = field(default_factory=dict)
    """The functions that return the permits of the process."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def start(cls, listener: socket.socket, shared: SharedState) -> WorkerHandle:
        """Start a process that accepts on `listener`.

        Raises:
            OSError: the system can't start another process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), listener.fileno())
            argv = [sys.executable, "-P", "-m", "xinference.gateway.workers.worker", *map(str, fds)]
            try:
                # In a new session, so that Ctrl+C in a terminal signals only the server, which stops this process.
                process = subprocess.Popen(  # noqa: ASYNC220 -- it returns in a few milliseconds
                    argv, pass_fds=fds, stdin=subprocess.DEVNULL, start_new_session=True
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        return cls(process, await Channel.open(ours, FROM_WORKER), shared)

    # -- questions to the process ---------------------------------------------------------------------------

    async def report(self, *, with_active: bool = False) -> None:
        """Wait for a report, which follows all messages that were sent before; returns if the process dies."""
        if self.serving:
            number, answer = self._question()
            self.channel.send(ReportRequest(number, with_active))
            await self._answer(number, answer)

    async def abort_record(self, request_id: str) -> bool:
        """Abort the request with this id of a record; returns whether the process had it."""
        if not self.serving:
            return False
        number, answer = self._question()
        self.channel.send(AbortRecord(number, request_id))
        return await self._answer(number, answer)

    async def abort(self, model: str, request_id: str) -> bool:
        """Abort the requests of this id; returns whether the process had one."""
        if not self.serving:
            return False
        number, answer = self._question()
        self.channel.send(AbortRequests(number, model, request_id))
        return await self._answer(number, answer)

    async def wait_for_table(self, version: int) -> None:
        """Wait until the process uses the table of this version or a newer one; returns if the process dies."""
        while self.serving and self.table_version < version:
            await self._changed.wait()

    def requests_at(self, replica_id: str) -> int:
        """The number of requests in flight at a replica, plus those that the process is about to send to it."""
        return self.in_flight.get(replica_id, 0) + sum(
            replica_id in replicas for replicas in self._pending_targets.values()
        )

    def _question(self) -> tuple[int, asyncio.Future[bool]]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        return number, answer

    async def _answer(self, number: int, answer: asyncio.Future[bool]) -> bool:
        try:
            return await answer
        finally:
            self._answers.pop(number, None)

    # -- messages of the process ----------------------------------------------------------------------------

    async def handle_messages(self) -> None:
        """Handle the messages of the process until it closes the channel; then release its permits."""
        try:
            async for message in self.channel.messages():
                self._handle(message)
        except Exception:  # a defect: the process is replaced as if it had died
            log.exception("a message of gateway process %d could not be handled", self.process.pid)
        finally:
            self._release()

    def _handle(self, message: ToServer) -> None:
        match message:
            case TableAck():
                self.table_version = message.version
                if not self.serving:
                    # Every table that was published meanwhile precedes this message on the channel.
                    self.serving = True
                    self.channel.send(Serve())
                    self.shared.on_serving()
                self._wake()
            case EnsureReady():
                task = asyncio.create_task(self._ensure_ready(message))
                self._ensuring[message.number] = task
                task.add_done_callback(lambda _: self._ensuring.pop(message.number, None))
            case ReadyAck():
                self._pending_targets.pop(message.number, None)
                self.in_flight = message.in_flight
            case TakeRequest():
                self._take_request(message)
            case CrashNote():
                self.shared.crashes.note_crash(message.replica_id, message.key, message.in_flight)
            case LeftNote():
                self.shared.crashes.note_left(message.replica_id, message.key)
            case GiveBackRequest():
                self.shared.quota.give_back_request(message.key, message.now)
            case SpendTokens():
                self.shared.quota.spend_tokens(message.key, message.tokens, message.now)
            case TakePermit() | TakeKeyPermit():
                self._take_permit(message)
            case Cancel():
                self._cancel(message.number)
            case AbortResult():
                self._resolve(message.number, message.aborted)
            case Report():
                self.in_flight, self.last_bytes = message.in_flight, message.last_bytes
                if message.active is not None:
                    self.active = message.active
                self.shared.on_report(message)
                self._resolve(message.number, True)
            case Records():
                self.shared.on_records(message.records)
            case _:
                assert_never(message)

    async def _ensure_ready(self, question: EnsureReady) -> None:
        try:
            route = await self.shared.router.ensure_ready(question.uid, question.seconds)
        except Problem as problem:
            self.channel.send(Rejection.of(question.number, problem))
            return
        except Exception as error:
            # A defect of xinference must be the answer: the client would wait for as long as it stays.
            log.exception("a question for the model %s", question.uid)
            self.channel.send(Rejection.of(question.number, defect(error)))
            return
        # Without an await after `ensure_ready`, as it requires.
        self._pending_targets[question.number] = frozenset(target.replica_id for target in route.targets)
        self.channel.send(Ready(question.number))

    def _take_request(self, question: TakeRequest) -> None:
        try:
            self.shared.quota.limits.take_request(question.key, question.now)
        except Problem as problem:
            self.channel.send(Rejection.of(question.number, problem))
        else:
            self.channel.send(Grant(question.number))

    def _take_permit(self, question: TakePermit | TakeKeyPermit) -> None:
        permits = self.shared.quota.permits
        try:
            if isinstance(question, TakePermit):
                permits.take(question.uid, question.maximum)
                give_back = partial(permits.give_back, question.uid)
            else:
                permits.take_of_key(question.key, question.maximum)
                give_back = partial(permits.give_back_of_key, question.key)
        except Problem as problem:
            self.channel.send(Rejection.of(question.number, problem))
        else:
            self._permits[question.number] = give_back
            self.channel.send(Grant(question.number))

    def _cancel(self, number: int) -> None:
        self._pending_targets.pop(number, None)
        if number in self._permits:
            self._permits.pop(number)()
        if number in self._ensuring:
            self._ensuring[number].cancel()

    def _resolve(self, number: int, answer: bool) -> None:
        future = self._answers.get(number)
        if future is not None and not future.done():
            future.set_result(answer)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _release(self) -> None:
        self.serving = False
        self.in_flight, self.active = {}, []
        self.channel.close()
        for number in [*self._permits, *self._pending_targets, *self._ensuring]:
            self._cancel(number)
        for number in self._answers:
            self._resolve(number, False)
        self._wake()
