"""The last lines that a server process has logged, in memory, so that they can be read over REST."""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator
from threading import Lock
from typing import Protocol, TextIO

from xinference.log_position import LogPosition, Piece

#: Maximum number of bytes in memory.
KEPT_BYTES = 1024 * 1024
#: Time between two looks of a follower.
POLL_SECONDS = 0.5


class Stop(Protocol):
    """The notice that the server stops."""

    async def sleep(self, seconds: float) -> bool:
        """Sleep until the stop begins, at most so long; returns whether it has begun."""
        ...


class RecentLog:
    """The log of this process since its start, without the oldest lines. Used from several threads."""

    def __init__(self, kept: int = KEPT_BYTES) -> None:
        self._kept = kept
        self._name = secrets.token_hex(4)
        self._lock = Lock()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._end = 0

    @property
    def end(self) -> LogPosition:
        """The place after the last line."""
        return LogPosition(self._name, self._end)

    def add(self, line: str) -> None:
        """Add a line, which may have several lines of text."""
        data = line.encode("utf-8", "replace") + b"\n"
        with self._lock:
            self._lines.append(data)
            self._size += len(data)
            self._end += len(data)
            while self._size > self._kept and len(self._lines) > 1:
                self._size -= len(self._lines.popleft())

    def read_from(self, position: LogPosition) -> Piece:
        """The text from a place on. If it is gone, or is one of an earlier process, the text begins with the oldest."""
        with self._lock:
            text, begin = b"".join(self._lines), self._end - self._size
            end = self.end
        if position.file not in ("", self._name) or not begin <= position.offset <= end.offset:
            return Piece(text, end)
        return Piece(text[position.offset - begin :], end)

    def read_last_lines(self, lines: int) -> Piece:
        """The last lines."""
        piece = self.read_from(LogPosition("", -1))
        kept = piece.data.splitlines(keepends=True)[-lines:]
        return Piece(b"".join(kept), piece.end)

    async def follow(self, piece: Piece, stop: Stop) -> AsyncIterator[bytes]:
        """A piece, then what is logged after it until the server stops."""
        yield piece.data
        stops = False
        while not stops:
            stops = await stop.sleep(POLL_SECONDS)
            if self._end != piece.end.offset:
                piece = self.read_from(piece.end)
                yield piece.data


class RecentLogHandler(logging.StreamHandler[TextIO]):
    """Writes each record to a stream, and keeps its text."""

    def __init__(self, stream: TextIO, recent: RecentLog) -> None:
        super().__init__(stream)
        self._recent = recent

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        self._recent.add(text)
        return text


#: The log of this process.
RECENT = RecentLog()
