"""The last changes that followers of the server read: one bounded list for all of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec

#: Maximum number of changes in memory, and of the bytes of their data.
MAX_CHANGES, MAX_BYTES = 4096, 4 * 1024 * 1024
#: Maximum number of bytes that a follower takes at once: a follower that does not read holds no more.
PIECE_BYTES = 64 * 1024
#: Minimum time between two moments at which followers are woken: a piece costs each of them more than its changes.
GATHER_SECONDS = 0.5
#: The share of it for which a change waits at least: the topics are read at about the same time.
FIRST_WAIT = 0.2


class Change(msgspec.Struct, frozen=True, gc=False):
    """One event of a topic."""

    number: int
    topic: str
    event: bytes
    """The server-sent event, made once for all followers."""
    model: str | None = None
    """The model that it is about; None: it is about no single one."""
    key_id: str | None = None
    """The key whose requests it is about; None: it is not about requests."""


class Changes:
    """The changes of one server. Each follower has the number of the last one that it has read, and no queue.

    A follower that is too slow finds that the changes after its number are no longer here. Used from one event loop, so
    it needs no lock.
    """

    def __init__(
        self,
        kept: int = MAX_CHANGES,
        kept_bytes: int = MAX_BYTES,
        gather_seconds: float = GATHER_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.last = 0
        """The number of the newest change."""
        self._run = secrets.token_hex(4)
        self._kept = kept
        self._kept_bytes = kept_bytes
        self._gather_seconds = gather_seconds
        self._now = now
        self._bytes = 0
        self._changes: deque[Change] = deque()
        self._published = 0
        """The number of the newest change that followers get."""
        self._published_at = float("-inf")
        self._publishing: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[bool]] = set()

    def add(self, topic: str, name: str, data: bytes, model: str | None = None, key_id: str | None = None) -> None:
        """Add a change. `data` is JSON without a line end.

        Those that wait get it with the changes of the next moments, `GATHER_SECONDS` after those before it.
        """
        self.last += 1
        change = Change(self.last, topic, frame(self.id_of(self.last), name, data), model, key_id)
        self._changes.append(change)
        self._bytes += len(change.event)
        while len(self._changes) > self._kept or (self._bytes > self._kept_bytes and len(self._changes) > 1):
            self._bytes -= len(self._changes.popleft().event)
        self._publish_soon()

    def after(self, number: int, limit: int = PIECE_BYTES) -> list[Change] | None:
        """The next changes after a number, of about `limit` bytes; None: some of them are no longer here."""
        if self.last - number > len(self._changes):
            return None
        found: list[Change] = []
        first = self.last - len(self._changes)  # the number before that of the oldest change
        for change in islice(self._changes, number - first, max(0, self._published - first)):
            found.append(change)
            limit -= len(change.event)
            if limit <= 0:
                break
        return found

    async def wait(self, number: int, seconds: float) -> bool:
        """Wait for a change after a number, at most `seconds`; returns whether that time was enough."""
        if self._published > number:
            return True
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _end, waiting)
        self._waiting.add(waiting)
        if self.last > number:
            self._publish_soon()
        try:
            return await waiting
        finally:
            timer.cancel()
            self._waiting.discard(waiting)

    def wake(self) -> None:
        """Wake those that wait, with the changes that are here."""
        if self._publishing is not None:
            self._publishing.cancel()
        self._publish()

    def _publish_soon(self) -> None:
        if self._publishing is not None:
            return
        gather = self._gather_seconds
        if not gather:
            self._publish()
        elif self._waiting:  # else the next one that waits begins it
            seconds = max(self._published_at + gather - self._now(), FIRST_WAIT * gather)
            self._publishing = asyncio.get_running_loop().call_later(seconds, self._publish)

    def _publish(self) -> None:
        self._publishing = None
        self._published, self._published_at = self.last, self._now()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(True)

    def id_of(self, number: int) -> str:
        """The id of a change in the stream."""
        return f"{self._run}-{number}"

    def number_of(self, identity: str) -> int | None:
        """The number of an id; None: it is none of this server."""
        run, _, number = identity.rpartition("-")
        if run != self._run or not number.isdecimal() or len(number) > 15 or int(number) > self.last:
            return None
        return int(number)


def _end(waiting: asyncio.Future[bool]) -> None:
    """End a wait without a change."""
    if not waiting.done():
        waiting.set_result(False)


def frame(identity: str, name: str, data: bytes) -> bytes:
    """One server-sent event."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (identity.encode(), name.encode(), data)


def frames(chosen: Iterable[Change]) -> bytes:
    """Changes as server-sent events."""
    return b"".join([change.event for change in chosen])
