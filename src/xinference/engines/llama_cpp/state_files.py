"""The files of one model's saved states: in memory, where the engine writes and reads them, and on the disk.

A file from the disk is read only if its size and its digest are those of the index, which is written after the file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from hashlib import blake2b
from pathlib import Path

import msgspec

from xinference.files.private_file import write_private
from xinference.files.small_file import read_small

INDEX = "index.json"
PIECE = 1 << 20
#: Share of the file system in memory that must stay free.
FREE_SHARE = 0.1


class Kept(msgspec.Struct, frozen=True):
    """The entry of one file on the disk."""

    name: str
    bytes: int
    digest: str
    hits: int
    ends: list[tuple[str, int]]
    """The beginnings of its prompt: digest in hexadecimal digits, and length."""


_INDEX = msgspec.json.Decoder(list[Kept])


class StateFiles:
    """The files of the states of one model."""

    def __init__(self, memory: Path, disk: Path) -> None:
        self.memory, self._disk = memory, disk

    def is_whole(self, name: str, size: int) -> bool:
        """Whether the file in memory is a file of this user with this size."""
        try:
            found = (self.memory / name).lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == size and found.st_uid == os.geteuid()

    def has_room(self, size: int) -> bool:
        """Whether the file system in memory has room for `size` bytes, and some more."""
        try:
            system = os.statvfs(self.memory)
        except OSError:
            return False
        return system.f_bavail * system.f_frsize >= size + FREE_SHARE * system.f_blocks * system.f_frsize

    def delete(self, name: str) -> None:
        """Delete a file in memory, and the one that llama.cpp writes beside it for some models."""
        for path in (self.memory / name, self.memory / f"{name}.ckpt"):
            with contextlib.suppress(OSError):
                path.unlink()

    def delete_kept(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self._disk / name).unlink()

    def keep(self, name: str) -> str:
        """Copy a file to the disk and return its digest.

        Raises:
            OSError: it can't be written.
        """
        part = self._disk / f"{name}.part"
        try:
            digest = _copy(self.memory / name, part)
            part.rename(self._disk / name)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return digest

    def fetch(self, kept: Kept) -> bool:
        """Copy a file from the disk to memory; returns whether it is the one that was written."""
        source, part = self._disk / kept.name, self.memory / f"{kept.name}.part"
        try:
            found = source.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != kept.bytes or found.st_uid != os.geteuid():
                return False
            if _copy(source, part) != kept.digest:
                return False
            part.rename(self.memory / kept.name)
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        return True

    def read_index(self) -> list[Kept]:
        """The entries of the index; an index that can't be read has none."""
        try:
            return [each for each in _INDEX.decode(read_small(self._disk / INDEX)) if _is_name(each.name)]
        except (OSError, ValueError, RecursionError):
            return []

    def write_index(self, entries: list[Kept]) -> None:
        """Write the index.

        Raises:
            OSError: it can't be written.
        """
        write_private(self._disk / INDEX, msgspec.json.encode(entries))


def _is_name(name: str) -> bool:
    return name.isascii() and name.endswith(".state") and "/" not in name and not name.startswith(".")


def _copy(source: Path, to: Path) -> str:
    """Copy a file, readable by this user only, and return the digest of its bytes."""
    digest = blake2b(digest_size=32)
    handle = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with source.open("rb") as reader, os.fdopen(handle, "wb") as writer:
        while piece := reader.read(PIECE):
            digest.update(piece)
            writer.write(piece)
    return digest.hexdigest()
