"""Concurrent downloads with one byte counter and one stop event."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import TypeVar

from xinference.files.progress import Progress, cancelled_problem
from xinference.hubs.listing import ListedFile
from xinference.work_threads import DaemonExecutor, start_thread

_Result = TypeVar("_Result")

FILES_AT_ONCE = 4
FIRST_PAUSE_SECONDS = 0.5
_POLL_SECONDS = 0.1

Report = Callable[[int], None]
"""Called with the bytes transferred since the last call; negative if some were discarded."""


class Tally:
    """Counts the bytes of all files and reports the sums to one `Progress`."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def report(self, name: str) -> Report:
        """The counter of one file."""

        def add(count: int) -> None:
            # Under the lock: sums must be reported in ascending order.
            with self._lock:
                self._done += count
                self._progress(self._done, self._total, name)

        return add


def fetch_all(
    files: Sequence[ListedFile],
    fetch_one: Callable[[ListedFile, Report, threading.Event], object],
    progress: Progress,
    cancelled: threading.Event,
    what: str,
) -> None:
    """Call `fetch_one` for each file, for several files concurrently; the first failure stops the others and is raised.

    `fetch_one` gets the file, its counter and an event that is set when it must stop.

    Raises:
        Problem: ``cancelled``, at once: a thread that waits for a silent server ends a little later.
    """
    tally = Tally(sum(file.size for file in files), progress)
    stop = threading.Event()
    # Large files first: the longest one must not begin last.
    ordered = sorted(files, key=lambda file: -file.size)
    pool = DaemonExecutor(FILES_AT_ONCE, "fetch")
    try:
        futures = [pool.submit(fetch_one, file, tally.report(file.name), stop) for file in ordered]
        _watch(futures, cancelled, what)
    finally:
        stop.set()
        pool.shutdown()


def run_cancellable(call: Callable[[], _Result], cancelled: threading.Event, what: str) -> _Result:
    """The result of a blocking call; returns at once with ``cancelled`` if the fetch is cancelled meanwhile."""
    future = start_thread("ask", call)
    _watch([future], cancelled, what)
    return future.result()


def _watch(futures: Sequence[Future[_Result]], cancelled: threading.Event, what: str) -> None:
    waiting = set(futures)
    while waiting:
        if cancelled.is_set():
            raise cancelled_problem(what)
        done, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_EXCEPTION)
        for future in done:
            if (error := future.exception()) is not None:
                raise error if not isinstance(error, Stopped) else cancelled_problem(what)


class Stopped(Exception):
    """Raised inside `fetch_one` when the stop event is set."""


def check_stop(stop: threading.Event) -> None:
    """Raise `Stopped` if the stop event is set."""
    if stop.is_set():
        raise Stopped


def pause_seconds(failures: int) -> float:
    """The time before the next attempt: half a second, doubled each time."""
    return FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1)


def pause(stop: threading.Event, failures: int, retry_after: float | None = None) -> None:
    """Wait before the next attempt, `retry_after` seconds if the server says so; at most a minute."""
    if stop.wait(min(60.0, retry_after if retry_after is not None else pause_seconds(failures))):
        raise Stopped
