"""Writes and hashes the pieces of a file in a thread each, while the next piece is received."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import cast

from xinference.hubs.transfer.partial_file import PartialFile
from xinference.work_threads import start_thread

#: Bytes of a piece, and the number of pieces: one is received, one written, one hashed, and one waits.
PIECE_BYTES, PIECES = 1024 * 1024, 4


class PieceQueue:
    """Appends pieces to a file, in order; the end of the block waits until all are written and hashed.

    An error of a thread is raised by `buffer` or at the end of the block, in place of an error of the block.
    """

    def __init__(self, opened: PartialFile) -> None:
        self._opened = opened
        self._free = SimpleQueue[bytearray | BaseException]()
        self._received = SimpleQueue[memoryview | None]()
        self._written = SimpleQueue[memoryview | None]()
        for _ in range(PIECES):
            self._free.put(bytearray(PIECE_BYTES))

    def __enter__(self) -> PieceQueue:
        self._threads = (start_thread("write pieces", self._write), start_thread("hash pieces", self._hash))
        return self

    def __exit__(self, *exc: object) -> None:
        self._received.put(None)
        for thread in self._threads:
            thread.exception()  # both have ended before the file is used again
        for thread in self._threads:
            thread.result()

    def buffer(self) -> memoryview:
        """A buffer for the next piece; waits until one is free.

        Raises:
            OSError: an earlier piece could not be written.
            Stopped: the transfer is to end.
        """
        free = self._free.get()
        if isinstance(free, BaseException):
            raise free
        return memoryview(free)

    def append(self, buffer: memoryview, count: int) -> None:
        """Append the first `count` bytes of a buffer of `buffer`, which is then used again."""
        self._received.put(buffer[:count])

    def _write(self) -> None:
        try:
            self._pass_on(self._received, self._opened.write, self._written.put)
        finally:
            self._written.put(None)

    def _hash(self) -> None:
        self._pass_on(self._written, self._opened.add_to_hash, lambda piece: self._free.put(cast(bytearray, piece.obj)))

    def _pass_on(
        self,
        pieces: SimpleQueue[memoryview | None],
        work: Callable[[memoryview], None],
        done: Callable[[memoryview], None],
    ) -> None:
        try:
            while (piece := pieces.get()) is not None:
                work(piece)
                done(piece)
        except BaseException as error:
            self._free.put(error)  # the receiver may wait for a buffer
            raise
