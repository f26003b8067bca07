"""One gateway process, seen from the server: what it is told, asks for and holds."""

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
from typing import assert_never

from xinference.errors import Problem
from xinference.gateway.rate_limits import LocalQuota
from xinference.gateway.workers.ipc import (
    FROM_WORKER,
    Abort,
    Aborted,
    Cancel,
    EnsureReady,
    Granted,
    Link,
    Ready,
    Refused,
    Report,
    Reported,
    Seen,
    Serve,
    SpendTokens,
    Taken,
    TakePermit,
    TakeRequest,
    ToServer,
)
from xinference.routing.interfaces import Router

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shared:
    """What all gateway processes have in common."""

    router: Router
    quota: LocalQuota
    reported: Callable[[Reported], None]
    """What one has counted."""


@dataclass
class WorkerProcess:
    """One process, its link and what is known of it."""

    process: subprocess.Popen[bytes]
    link: Link[ToServer]
    shared: Shared
    started: float = field(default_factory=time.monotonic)
    serving: bool = False
    """It may take requests; before that nobody waits for it."""
    seen: int = 0
    """The version of the table that it uses."""
    at: dict[str, int] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _waiting: dict[int, asyncio.Future[bool]] = field(default_factory=dict)
    _asking: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _promised: dict[int, frozenset[str]] = field(default_factory=dict)
    """Replicas that a waiting request was told of, and of which it is not yet among those that are counted."""
    _permits: dict[int, str] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def start(cls, listener: socket.socket, shared: Shared) -> WorkerProcess:
        """Start one that takes its requests from `listener`.

        Raises:
            OSError: the system can't start another process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), listener.fileno())
            words = [sys.executable, "-P", "-m", "xinference.gateway.workers.worker", *map(str, fds)]
            try:
                # A session of its own: what a terminal's user breaks off is the server, which ends this one in order.
                process = subprocess.Popen(  # noqa: ASYNC220 -- returns in a few milliseconds
                    words, pass_fds=fds, stdin=subprocess.DEVNULL, start_new_session=True
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        return cls(process, await Link.open(ours, FROM_WORKER), shared)

    # -- what it is asked -----------------------------------------------------------------------------------

    async def report(self) -> None:
        """Have it say what is going on, after it has read all that it was sent before; at once if it is dead."""
        if self.serving:
            number, answer = self._question()
            self.link.send(Report(number))
            await self._answer(number, answer)

    async def abort(self, model: str, request_id: str) -> bool:
        """End the requests of this id; whether there was one."""
        if not self.serving:
            return False
        number, answer = self._question()
        self.link.send(Abort(number, model, request_id))
        return await self._answer(number, answer)

    async def until_seen(self, version: int) -> None:
        """Wait until it uses the table of this version, or a newer one, or is dead."""
        while self.serving and self.seen < version:
            await self._changed.wait()

    def requests_at(self, replica_id: str) -> int:
        """Requests at a replica, and those that will be there in a moment."""
        return self.at.get(replica_id, 0) + sum(replica_id in replicas for replicas in self._promised.values())

    def _question(self) -> tuple[int, asyncio.Future[bool]]:
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        return number, answer

    async def _answer(self, number: int, answer: asyncio.Future[bool]) -> bool:
        try:
            return await answer
        finally:
            self._waiting.pop(number, None)

    # -- what it says ---------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Answer it until it is gone; then nothing is left of what it held."""
        try:
            async for message in self.link.messages():
                self._hear(message)
        except Exception:  # a bug of ours: it is replaced like one that has died
            log.exception("what gateway process %d said could not be done", self.process.pid)
        finally:
            self._gone()

    def _hear(self, message: ToServer) -> None:
        match message:
            case Seen():
                self.seen = message.version
                if not self.serving:
                    # All tables that came out meanwhile are before this in the link.
                    self.serving = True
                    self.link.send(Serve())
                self._wake()
            case EnsureReady():
                task = asyncio.create_task(self._ensure_ready(message))
                self._asking[message.number] = task
                task.add_done_callback(lambda _: self._asking.pop(message.number, None))
            case Taken():
                self._promised.pop(message.number, None)
                self.at = message.at
            case TakeRequest():
                self._take_request(message)
            case SpendTokens():
                self.shared.quota.spend_tokens(message.key, message.tokens, message.now)
            case TakePermit():
                self._take_permit(message)
            case Cancel():
                self._cancel(message.number)
            case Aborted():
                self._told(message.number, message.found)
            case Reported():
                self.at, self.ended = message.at, message.ended
                self.shared.reported(message)
                self._told(message.number, True)
            case _:
                assert_never(message)

    async def _ensure_ready(self, asked: EnsureReady) -> None:
        try:
            route = await self.shared.router.ensure_ready(asked.uid, asked.seconds)
        except Problem as problem:
            self.link.send(Refused.of(asked.number, problem))
            return
        # No other turn of the event loop since the answer: it is in use before anybody can find it idle.
        self._promised[asked.number] = frozenset(target.replica_id for target in route.targets)
        self.link.send(Ready(asked.number))

    def _take_request(self, asked: TakeRequest) -> None:
        try:
            self.shared.quota.limits.take_request(asked.key, asked.now)
        except Problem as problem:
            self.link.send(Refused.of(asked.number, problem))
        else:
            self.link.send(Granted(asked.number))

    def _take_permit(self, asked: TakePermit) -> None:
        try:
            self.shared.quota.permits.take(asked.uid, asked.most)
        except Problem as problem:
            self.link.send(Refused.of(asked.number, problem))
        else:
            self._permits[asked.number] = asked.uid
            self.link.send(Granted(asked.number))

    def _cancel(self, number: int) -> None:
        self._promised.pop(number, None)
        if number in self._permits:
            self.shared.quota.permits.give_back(self._permits.pop(number))
        if number in self._asking:
            self._asking[number].cancel()

    def _told(self, number: int, answer: bool) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _gone(self) -> None:
        self.serving = False
        self.at = {}
        self.link.close()
        for number in [*self._permits, *self._promised, *self._asking]:
            self._cancel(number)
        for number in self._waiting:
            self._told(number, False)
        self._wake()
