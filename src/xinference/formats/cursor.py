"""A forward reader for untrusted files: every length in the file is checked before it is used."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from xinference.error_codes import Code
from xinference.errors import Problem

#: No weight file is this large; a greater length means damage, not truncation.
ABSURD_BYTES = 1 << 44
#: Maximum number of skipped strings in one file, which bounds the time; the largest vocabularies with merges have 10^6.
MAX_STRINGS = 1 << 24
_CHUNK = 256 * 1024
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


def bad_weight_file(path: Path, what: str, hint: str) -> Problem:
    """The problem of an unusable weight file: `what` completes "<path> …"."""
    return Problem(Code.BAD_WEIGHT_FILE, f"{path} {what}.", hint=hint)


class Cursor:
    """Reads little-endian values in order; stores at most one chunk and the requested bytes in memory.

    Every method raises `Problem` ``bad_weight_file`` if the file is too short, and OSError if it cannot be read.
    """

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self._file = file
        self.path = path
        self.size = size
        self._chunk = b""
        self._chunk_start = 0
        self._offset = 0
        self._strings = 0

    @property
    def position(self) -> int:
        """Bytes from the start of the file."""
        return self._chunk_start + self._offset

    @property
    def remaining(self) -> int:
        """Bytes to the end of the file."""
        return self.size - self.position

    def damaged(self, what: str) -> Problem:
        """The problem of an invalid value; `what` names the value and its position."""
        return bad_weight_file(self.path, f"is damaged: {what}", "Delete the file and download it again.")

    def need(self, count: int, what: str) -> None:
        """Check that `count` more bytes exist, before any of them is read."""
        if count <= self.remaining:
            return
        if count > ABSURD_BYTES:
            raise self.damaged(f"{what} at byte {self.position} claims {count} bytes")
        raise bad_weight_file(
            self.path,
            f"is truncated: the header promises at least {self.position + count} bytes ({what}), "
            f"the file has {self.size}",
            "Delete the file and fetch it again.",
        )

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        self.need(count, what)
        if self._offset + count > len(self._chunk):
            self._refill(count, what)
        data = self._chunk[self._offset : self._offset + count]
        self._offset += count
        return data

    def skip(self, count: int, what: str) -> None:
        """Skip `count` bytes without reading them."""
        self.need(count, what)
        self._offset += count

    def u32(self, what: str) -> int:
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack(self.take(8, what))[0])

    def entries(self, count: int, tail: int, max_length: int, what: str) -> Iterator[bytes]:
        """`count` entries, each a 32-bit length of at most `max_length`, that many bytes, and `tail` more; yields both.

        A vocabulary has 10^5 of them: complete entries inside the loaded chunk are read without further calls.
        """
        unpack = _U32.unpack_from
        while count:
            chunk, offset, last = self._chunk, self._offset, len(self._chunk) - 4
            while count and offset <= last:
                (length,) = unpack(chunk, offset)
                stop = offset + 4 + length + tail
                if length > max_length or stop > last + 4:
                    break
                self._offset = stop
                yield chunk[offset + 4 : stop]
                offset, count = stop, count - 1
            if count:  # the entry crosses the chunk's end, or is damaged
                length = self.u32(what)
                if length > max_length:
                    raise self.damaged(f"{what} has an entry of {length} bytes before byte {self.position}")
                yield self.take(length + tail, what)
                count -= 1

    def skip_strings(self, count: int, what: str) -> None:
        """Skip `count` strings (each a 64-bit length and its bytes), by their lengths.

        A vocabulary has 10^5 of them: the inner loop stays inside one chunk and checks nothing else,
        since a skip past the chunk's end is checked against the file before the next read.
        """
        self._strings += count
        if self._strings > MAX_STRINGS:
            raise self.damaged(f"{what} claims {count} strings before byte {self.position}")
        unpack = _U64.unpack_from
        while count:
            self.need(8 * count, what)
            self._refill(8, what)
            chunk, offset, last = self._chunk, 0, len(self._chunk) - 8
            while count and offset <= last:
                offset += 8 + unpack(chunk, offset)[0]
                count -= 1
            self._offset = 0
            self.skip(offset, what)

    def _refill(self, count: int, what: str) -> None:
        """Load a chunk that starts at the current position and has at least `count` bytes."""
        start = self.position
        self._file.seek(start)
        self._chunk = self._file.read(max(count, _CHUNK))
        self._chunk_start, self._offset = start, 0
        if len(self._chunk) < count:
            self.size = start + len(self._chunk)  # it became shorter while it was read
            self.need(count, what)
