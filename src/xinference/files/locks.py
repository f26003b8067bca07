"""File and folder locks between threads and processes."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from xinference.files.progress import cancelled_problem

_POLL_SECONDS = 0.1


def lock(file: BinaryIO, cancelled: threading.Event) -> bool:
    """Hold an open file against other threads and processes, after waiting for it; False: cancelled before that."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if cancelled.wait(_POLL_SECONDS):
                return False


@contextmanager
def locked(folder: Path, cancelled: threading.Event, what: str) -> Iterator[None]:
    """Hold `folder` (made if it is missing) against other threads and processes; death gives it back.

    Raises:
        Problem: ``cancelled``, if that comes while waiting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The file is never deleted: a second waiter could hold a lock on a name that is gone.
    with (folder / ".lock").open("ab") as file:
        if not lock(file, cancelled):
            raise cancelled_problem(what)
        yield
