"""Evaluates the crashes that the gateway processes report, because each process has only its own requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from xinference.gateway.crash_memory import CrashMemory, RequestKey

#: Time from the first report of a crash in which the other processes report theirs.
GATHER_SECONDS = 0.3

Announce = Callable[[list[tuple[RequestKey, int]]], None]


class SharedCrashes:
    """The `CrashReports` of all gateway processes."""

    def __init__(self, announce: Announce) -> None:
        """`announce` sends suspected requests, with the crashes to add, to all processes."""
        self.memory = CrashMemory()
        self._announce = announce
        self._gathered: dict[str, list[tuple[RequestKey, int]]] = {}

    def note_crash(self, replica_id: str, key: RequestKey, in_flight: int) -> None:
        if replica_id not in self._gathered:
            self._gathered[replica_id] = []
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._judge, replica_id)
        self._gathered[replica_id].append((key, in_flight))

    def note_left(self, replica_id: str, key: RequestKey) -> None:
        self.memory.note_left(replica_id, key)

    def _judge(self, replica_id: str) -> None:
        self._announce(self.memory.judge(replica_id, self._gathered.pop(replica_id)))
