"""A file that is being transferred, with the hash of its content so far."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from xinference.hubs.transfer.flusher import Flusher
from xinference.hubs.transfer.parallel import Report, check_stop

_CHUNK = 1 << 20
#: Bytes of one call that writes. A longer one makes the kernel cache the file in larger blocks of memory; on a virtual
#: machine that has given free memory back to its host, those take three times as long to get.
WRITE_BYTES = 32 * 1024


class Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class TooLong(Exception):
    """There are more bytes than the file has."""


class PartialFile:
    """The partial file and the hash of its content."""

    def __init__(
        self, path: Path, size: int, digest: Callable[[], Digest], report: Report, stop: threading.Event
    ) -> None:
        self.length = 0
        self.size = size
        self._new_digest = digest
        self._digest = digest()
        self._report = report
        self._stop = stop
        self._file = path.open("ab+", buffering=0)
        self._flusher = Flusher(self._file.fileno())

    def __enter__(self) -> PartialFile:
        # What is kept is reported before it is hashed: its bytes are no part of this transfer's rate.
        self._report(os.fstat(self._file.fileno()).st_size)
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            self._hash(chunk)
        if self.length > self.size:  # not the beginning of this file
            self.restart()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._flusher.end()
        finally:
            self._file.close()

    def append(self, chunk: bytes | memoryview) -> None:
        if self.length + len(chunk) > self.size:
            raise TooLong
        self.write(chunk)
        self.add_to_hash(chunk)

    def write(self, chunk: bytes | memoryview) -> None:
        """Write bytes; `add_to_hash` of the same bytes must follow, and may run in another thread."""
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view[:WRITE_BYTES]) :]
        self._flusher.add(len(chunk))

    def add_to_hash(self, chunk: bytes | memoryview) -> None:
        """Hash and count bytes that have been written."""
        self._hash(chunk)
        self._report(len(chunk))

    def restart(self) -> None:
        self._file.truncate(0)
        self._report(-self.length)
        self.length = 0
        self._digest = self._new_digest()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _hash(self, chunk: bytes | memoryview) -> None:
        check_stop(self._stop)
        self.length += len(chunk)
        self._digest.update(chunk)


def git_sha1(size: int) -> Digest:
    """An empty hash for git's object id of a blob of `size` bytes."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
