"""Flushes a file while it is written, so that the disk works during a transfer and not only after it."""

from __future__ import annotations

import os
from concurrent.futures import Future
from queue import SimpleQueue

from xinference.work_threads import start_thread

#: Number of written bytes after which they are flushed.
FLUSH_BYTES = 32 * 1024 * 1024
#: The data without the times of the file; macOS has no such call.
_flush = getattr(os, "fdatasync", os.fsync)


class Flusher:
    """Flushes one file from a thread. Call `end` before the file is closed.

    Args:
        descriptor: of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._orders = SimpleQueue[bool]()
        """True: flush; False: end."""
        self._bytes = 0
        self._thread: Future[None] | None = None

    def add(self, count: int) -> None:
        """Count bytes that have been written.

        Raises:
            OSError: the disk could not take earlier ones.
        """
        self._bytes += count
        if self._bytes < FLUSH_BYTES:
            return
        self._bytes = 0
        if self._thread is None:
            self._thread = start_thread("flush a file", self._run)
        elif self._thread.done():
            self._thread.result()
        self._orders.put(True)

    def end(self) -> None:
        """Wait for the flush that runs, and flush the rest.

        Raises:
            OSError: the disk could not take all bytes. The kernel says so only once.
        """
        if self._thread is not None:
            self._orders.put(False)
            self._thread.result()
        os.fsync(self._descriptor)

    def _run(self) -> None:
        while self._orders.get():
            _flush(self._descriptor)
