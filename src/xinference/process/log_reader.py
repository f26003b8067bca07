"""Reads the log of a replica on from a position, also over the moment at which the log is rotated. Blocks."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from xinference.log_position import LogPosition, Piece

#: Maximum number of bytes of one answer.
PIECE_BYTES = 1024 * 1024


def has_more(path: Path, position: LogPosition) -> bool:
    """Whether something was written after a place. One system call, which does not block on a local disk."""
    try:
        found = path.stat()
    except OSError:
        return False
    return _name(path, found) != position.file or found.st_size > position.offset


def read_from(path: Path, position: LogPosition, limit: int = PIECE_BYTES) -> Piece:
    """The bytes from a place on. If its file is gone, they begin with the oldest ones that are left."""
    with ExitStack() as stack:
        files = [(file, os.fstat(file.fileno())) for file in _files(path, stack)]
        names = [_name(path, found) for _, found in files]
        if not files:
            return Piece(b"", LogPosition("", 0))
        if position.file in names:
            index, offset = names.index(position.file), position.offset
        elif not position.file:
            index, offset = len(files) - 1, position.offset if position.offset <= files[-1][1].st_size else 0
        else:
            index, offset = 0, 0
        data = b""
        while True:
            file, found = files[index]
            if offset < found.st_size and len(data) < limit:
                file.seek(offset)
                data += file.read(min(limit - len(data), found.st_size - offset))
                offset = file.tell()
            if index == len(files) - 1 or offset < found.st_size:
                return Piece(data, LogPosition(names[index], min(offset, found.st_size)))
            index, offset = index + 1, offset - found.st_size


def read_last_lines(path: Path, lines: int) -> Piece:
    """The last lines of the file that is written now."""
    try:
        with path.open("rb") as file:
            data = b"".join(deque(file, maxlen=lines))
            return Piece(data, LogPosition(_name(path, os.fstat(file.fileno())), file.tell()))
    except OSError:
        return Piece(b"", LogPosition("", 0))


def _files(path: Path, stack: ExitStack) -> Iterator[BinaryIO]:
    """The files of a log that can be read, the older one first; a file that is rotated meanwhile comes once."""
    seen = set()
    # The newer one is opened first: if it is rotated then, it comes as itself, and not as the older one too.
    opened: list[BinaryIO] = []
    for each in (path, path.with_name(path.name + ".1")):
        try:
            file = stack.enter_context(each.open("rb"))
        except OSError:
            continue
        number = os.fstat(file.fileno()).st_ino
        if number not in seen:
            seen.add(number)
            opened.append(file)
    yield from reversed(opened)


def _name(path: Path, found: os.stat_result) -> str:
    return f"{path.stem}.{found.st_ino:x}"
