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
    """Lock an open file against other threads and processes; False if cancelled while waiting."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if cancelled.wait(_POLL_SECONDS):
                return False


@contextmanager
def locked(folder: Path, cancelled: threading.Event, what: str) -> Iterator[None]:
    """Lock `folder` (created if missing) against other threads and processes; the lock of a dead process is released.

    Raises:
        Problem: ``cancelled`` while waiting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The lock file is never deleted: a waiter could otherwise hold a lock on a deleted name.
    with (folder / ".lock").open("ab") as file:
        if not lock(file, cancelled):
            raise cancelled_problem(what)
        yield
