"""The bounded log of one engine. Standard library only, because the keeper imports it."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path

#: Number of lines that are stored in memory and shown with a failure.
TAIL_LINES = 40
#: Maximum length of a line, in bytes; the rest is dropped.
MAX_LINE = 4096


class BoundedLog:
    """Writes an engine's raw output to `path` and ``path.1``, at most `max_bytes` in total.

    No method raises for a full disk or a deleted folder: lines are dropped and counted, and the number is written
    once writing works again. The engine must not stop because its log cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._half = max(max_bytes // 2, 2 * MAX_LINE)
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._pending = b""
        self._dropped = 0
        self._size = 0
        self._fd: int | None = None

    def feed(self, data: bytes) -> None:
        """Append raw output, which may end anywhere in a line."""
        *lines, rest = (self._pending + data).split(b"\n")
        for line in lines:
            shown = _visible(line)
            self._tail.append(shown)
            self._write(shown)
        # An endless line must not fill the memory: store its beginning, or the text after its last carriage return.
        self._pending = rest if len(rest) <= MAX_LINE else _visible(rest)

    def tail(self) -> tuple[str, ...]:
        """The last 40 lines, oldest first, including an unfinished one."""
        lines = [*self._tail, _visible(self._pending)] if self._pending else list(self._tail)
        return tuple(line.decode("utf-8", "replace") for line in lines[-TAIL_LINES:])

    def close(self) -> None:
        """Write an unfinished last line and close the file."""
        if self._pending:
            self.feed(b"\n")
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _write(self, line: bytes) -> None:
        """Append one line, or count it as dropped."""
        note = b"[%d lines could not be written]\n" % self._dropped if self._dropped else b""
        data = note + line + b"\n"
        if self._size + len(data) > self._half:
            self._rotate()
        try:
            if self._fd is None:
                self._open()
            assert self._fd is not None
            self._size += os.write(self._fd, data)
        except OSError:
            self._dropped += 1
        else:
            self._dropped = 0

    def _rotate(self) -> None:
        with contextlib.suppress(OSError):
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._close_file()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _close_file(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._size = 0


def read_tail(path: Path, lines: int = TAIL_LINES) -> tuple[str, ...]:
    """The last lines of a log file, oldest first; () if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - lines * MAX_LINE))
            return tuple(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ()


def _visible(line: bytes) -> bytes:
    """The text that a terminal shows: a progress bar redraws its line after each carriage return."""
    return line.rstrip(b"\r").rpartition(b"\r")[2][:MAX_LINE]
