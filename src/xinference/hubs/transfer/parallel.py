"""Several files at once, one count of bytes, and one word that stops them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from xinference.files.progress import Progress, cancelled_problem
from xinference.hubs.listing import ListedFile

_Answer = TypeVar("_Answer")

FILES_AT_ONCE = 4
_POLL_SECONDS = 0.1

Report = Callable[[int], None]
"""Called with the bytes that came since the last call; negative if some were thrown away."""


class Tally:
    """Bytes of all files together, told to a `Progress` in one line of calls."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def report(self, name: str) -> Report:
        """The counter of one file."""

        def add(count: int) -> None:
            # Under the lock: a later sum must not be told before an earlier one.
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
    """Call `fetch_one` for each file, a few at a time; the first failure stops the others and is raised.

    `fetch_one` gets the file, its counter and an event, which is set when it should give up.

    Raises:
        Problem: ``cancelled``, at once: a thread that waits for a silent server ends on its own a little later.
    """
    tally = Tally(sum(file.size for file in files), progress)
    stop = threading.Event()
    # Big files first: the longest one should not begin last.
    ordered = sorted(files, key=lambda file: -file.size)
    pool = ThreadPoolExecutor(max_workers=FILES_AT_ONCE, thread_name_prefix="fetch")
    try:
        futures = [pool.submit(fetch_one, file, tally.report(file.name), stop) for file in ordered]
        _watch(futures, cancelled, what)
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


def ask(question: Callable[[], _Answer], cancelled: threading.Event, what: str) -> _Answer:
    """The answer of a blocking call, unless the fetch is cancelled meanwhile: then nothing is waited for."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ask")
    try:
        future = pool.submit(question)
        _watch([future], cancelled, what)
        return future.result()
    finally:
        pool.shutdown(wait=False)


def _watch(futures: Sequence[Future[_Answer]], cancelled: threading.Event, what: str) -> None:
    waiting = set(futures)
    while waiting:
        if cancelled.is_set():
            raise cancelled_problem(what)
        done, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_EXCEPTION)
        for future in done:
            if (error := future.exception()) is not None:
                raise error if not isinstance(error, Stopped) else cancelled_problem(what)


class Stopped(Exception):
    """Raised inside `fetch_one` when it was told to give up."""


def check(stop: threading.Event) -> None:
    """Raise `Stopped` if the fetch was told to give up."""
    if stop.is_set():
        raise Stopped


def pause(stop: threading.Event, failures: int, asked: float | None = None) -> None:
    """Wait before another try: half a second, doubled each time, or what the server asked for, at most a minute."""
    if stop.wait(min(60.0, asked if asked is not None else 0.5 * 2 ** (failures - 1))):
        raise Stopped
