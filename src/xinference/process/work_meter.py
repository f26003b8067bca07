"""Measures what an engine's processes do: processor time by thread, and bytes read from disks."""

from __future__ import annotations

from collections.abc import Iterator

import psutil

from xinference.process.progress_watch import Work

_Thread = tuple[int, int]


class WorkMeter:
    """The work of a process and its descendants since `restart`. Every method takes some milliseconds."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._threads: dict[_Thread, float] = {}
        self._read: dict[int, int] = {}

    def restart(self) -> None:
        """Measure from now on."""
        self._threads, self._read = self._processor_times(), self._bytes_read()

    def work(self) -> Work:
        """The work since `restart`; a thread or process that has ended since then does not count."""
        times = sorted(now - self._threads.get(thread, 0.0) for thread, now in self._processor_times().items())
        busiest, second = [*reversed(times), 0.0, 0.0][:2]
        read = sum(max(0, now - self._read.get(pid, 0)) for pid, now in self._bytes_read().items())
        return Work(busiest, second, read)

    def _processor_times(self) -> dict[_Thread, float]:
        return {
            (process.pid, thread.id): thread.user_time + thread.system_time
            for process in self._processes()
            for thread in _threads(process)
        }

    def _bytes_read(self) -> dict[int, int]:
        return {process.pid: _read_by(process) for process in self._processes()}

    def _processes(self) -> Iterator[psutil.Process]:
        try:
            root = psutil.Process(self._pid)
            yield from (root, *root.children(recursive=True))
        except psutil.Error:
            return


def _threads(process: psutil.Process) -> list[psutil._common.pthread]:
    try:
        return list(process.threads())
    except psutil.Error:  # it has ended, or the system does not tell
        return []


def _read_by(process: psutil.Process) -> int:
    try:
        return int(process.io_counters().read_bytes)
    except (psutil.Error, AttributeError):  # macOS does not tell
        return 0
