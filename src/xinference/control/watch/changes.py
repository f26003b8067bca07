"""The last changes that followers of the server read: one bounded list for all of them."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterable
from itertools import islice

import msgspec

#: Maximum number of changes in memory, and of the bytes of their data.
MAX_CHANGES, MAX_BYTES = 4096, 4 * 1024 * 1024
#: Maximum number of bytes that a follower takes at once: a follower that does not read holds no more.
PIECE_BYTES = 64 * 1024


class Change(msgspec.Struct, frozen=True, gc=False):
    """One event of a topic."""

    number: int
    topic: str
    name: str
    """The name of the event."""
    data: bytes
    """JSON without a line end."""
    model: str | None = None
    """The model that it is about; None: it is about no single one."""
    key_id: str | None = None
    """The key whose requests it is about; None: it is not about requests."""


class Changes:
    """The changes of one server. Each follower has the number of the last one that it has read, and no queue.

    A follower that is too slow finds that the changes after its number are no longer here. Used from one event loop, so
    it needs no lock.
    """

    def __init__(self, kept: int = MAX_CHANGES, kept_bytes: int = MAX_BYTES) -> None:
        self.last = 0
        """The number of the newest change."""
        self.dropped = 0
        """How often a follower lost changes."""
        self._run = secrets.token_hex(4)
        self._kept = kept
        self._kept_bytes = kept_bytes
        self._bytes = 0
        self._changes: deque[Change] = deque()
        self._added = asyncio.Event()

    def add(self, topic: str, name: str, data: bytes, model: str | None = None, key_id: str | None = None) -> None:
        """Add a change, and wake those that wait for one."""
        self.last += 1
        self._changes.append(Change(self.last, topic, name, data, model, key_id))
        self._bytes += len(data)
        while len(self._changes) > self._kept or (self._bytes > self._kept_bytes and len(self._changes) > 1):
            self._bytes -= len(self._changes.popleft().data)
        self._added.set()

    def after(self, number: int, limit: int = PIECE_BYTES) -> list[Change] | None:
        """The next changes after a number, of about `limit` bytes; None: some of them are no longer here."""
        count = self.last - number
        if count > len(self._changes):
            return None
        found: list[Change] = []
        for change in islice(self._changes, len(self._changes) - count, None):
            found.append(change)
            limit -= len(change.data)
            if limit <= 0:
                break
        return found

    async def wait(self, number: int, seconds: float) -> bool:
        """Wait for a change after a number, at most `seconds`; returns whether that time was enough."""
        if self.last > number:
            return True
        if self._added.is_set():
            self._added = asyncio.Event()
        try:
            await asyncio.wait_for(self._added.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """Wake those that wait, without a change."""
        self._added.set()

    def id_of(self, number: int) -> str:
        """The id of a change in the stream."""
        return f"{self._run}-{number}"

    def number_of(self, identity: str) -> int | None:
        """The number of an id; None: it is none of this server."""
        run, _, number = identity.rpartition("-")
        if run != self._run or not number.isdecimal() or len(number) > 15 or int(number) > self.last:
            return None
        return int(number)


def frame(identity: str, name: str, data: bytes) -> bytes:
    """One server-sent event."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (identity.encode(), name.encode(), data)


def frames(changes: Changes, chosen: Iterable[Change]) -> bytes:
    """Changes as server-sent events."""
    return b"".join(frame(changes.id_of(change.number), change.name, change.data) for change in chosen)
