"""Counts the requests at the engines of a worker, to detect engines that hang."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter

from xinference.gateway.http.engine_pool import EnginePool


class DoorLoad:
    """A `ReplicaLoad` of one node: what came through its front door."""

    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool
        self._in_flight: Counter[str] = Counter()
        self._ends: dict[str, float] = {}
        self._idle: dict[str, asyncio.Event] = {}
        """Set when the last request at a replica has ended, for those who wait."""

    def begin(self, replica_id: str) -> None:
        """A request is sent to a replica."""
        self._in_flight[replica_id] += 1

    def end(self, replica_id: str) -> None:
        """The answer to a request has ended."""
        self._in_flight[replica_id] -= 1
        if not self._in_flight[replica_id]:
            del self._in_flight[replica_id]
            if (idle := self._idle.pop(replica_id, None)) is not None:
                idle.set()
        self._ends[replica_id] = time.monotonic()

    async def wait_until_idle(self, replica_id: str, seconds: float) -> None:
        """Wait until no request is at a replica, at most for so long."""
        if replica_id in self._in_flight:
            idle = self._idle.setdefault(replica_id, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(idle.wait(), seconds)

    # -- as `ReplicaLoad` -------------------------------------------------------------------------------------

    def at(self, replica_id: str) -> int:
        return self._in_flight[replica_id]

    def last_end(self, replica_id: str) -> float | None:
        return self._ends.get(replica_id)

    async def last_byte(self, base_url: str) -> float:
        return self._pool.last_bytes().get(base_url, 0.0)

    def forget(self, replica_id: str) -> None:
        self._ends.pop(replica_id, None)

    async def settled(self) -> None:
        """The counts are always those of now."""
