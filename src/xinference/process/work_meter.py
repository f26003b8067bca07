"""Measures the work of an engine's processes: processor time by thread, and bytes read from disks."""

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
            (process.pid, thread): seconds
            for process in self._processes()
            for thread, seconds in _threads(process).items()
        }

    def _bytes_read(self) -> dict[int, int]:
        return {process.pid: _read_by(process) for process in self._processes()}

    def _processes(self) -> Iterator[psutil.Process]:
        try:
            root = psutil.Process(self._pid)
            yield from (root, *root.children(recursive=True))
        except psutil.Error:
            return


def _threads(process: psutil.Process) -> dict[int, float]:
    """Processor seconds by thread; empty if the process has ended."""
    try:
        return {thread.id: thread.user_time + thread.system_time for thread in process.threads()}
    except psutil.AccessDenied:  # macOS tells only root: any work of the process may be that of several threads
        pass
    except psutil.Error:
        return {}
    try:
        times = process.cpu_times()
    except psutil.Error:
        return {}
    return dict.fromkeys((-1, -2), times.user + times.system)


def _read_by(process: psutil.Process) -> int:
    try:
        return int(process.io_counters().read_bytes)
    except (psutil.Error, AttributeError):  # macOS does not tell
        return 0
