"""Compares the memory of an engine's processes with its ceiling. Standard library only, for the keeper."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from xinference.process.memory import exact_private_bytes, oom_kills, private_bytes

#: Seconds between two samples, and between two searches for new processes of the engine, which cost more.
SAMPLE_SECONDS, SEARCH_SECONDS = 1.0, 5.0
#: Seconds after which the counter of the kernel's kills is read again.
OOM_SECONDS = 5.0

Measure = Callable[[Iterable[int]], int]


class MemoryWatch:
    """Samples the memory of the engine's processes.

    Args:
        ceiling: bytes; 0: no ceiling.
        find: returns the pids of all processes of the engine.
    """

    def __init__(
        self,
        ceiling: int,
        find: Callable[[], list[int]],
        *,
        quick: Measure = private_bytes,
        exact: Measure = exact_private_bytes,
    ) -> None:
        self.ceiling = ceiling
        self._find = find
        self._quick = quick
        self._exact = exact
        self._pids: list[int] = []
        self._sample_at = self._search_at = 0.0

    def excess(self, now: float) -> int | None:
        """Bytes in use if they exceed the ceiling; None: they do not, or no sample is due."""
        if not self.ceiling or now < self._sample_at:
            return None
        self._sample_at = now + SAMPLE_SECONDS
        if now >= self._search_at:
            self._pids, self._search_at = self._find(), now + SEARCH_SECONDS
        used = self._quick(self._pids)
        if used > self.ceiling and len(self._pids) > 1:
            # Forked processes share pages, which the quick measure counts in each of them.
            used = self._exact(self._pids) or used
        return used if used > self.ceiling else None

    def seconds_to_sample(self, now: float) -> float | None:
        """Seconds until the next sample is due; None: there is no ceiling."""
        return max(0.0, self._sample_at - now) if self.ceiling else None


class OomWatch:
    """Tells whether the kernel has just killed a process for lack of memory.

    Its counter is that of the control group or the machine, so only a recent increase can concern the engine.
    """

    def __init__(self, count: Callable[[], int | None] = oom_kills) -> None:
        self._count = count
        self._older = self._newer = count() or 0
        self._read_at = 0.0

    def refresh(self, now: float) -> None:
        """Read the counter if it is due; to be called while the engine runs."""
        if now >= self._read_at:
            self._read_at = now + OOM_SECONDS
            self._older, self._newer = self._newer, self._count() or 0

    def has_risen(self) -> bool:
        """Whether the counter has increased within the last seconds."""
        return (self._count() or 0) > self._older
