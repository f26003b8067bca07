"""A place in a log, which stays valid while the log grows."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TEXT = re.compile(r"(?:(?P<file>[\w.-]{1,100})-)?(?P<offset>\d{1,15})", re.ASCII)


@dataclass(frozen=True, slots=True)
class LogPosition:
    """A place in a log."""

    file: str
    """The name of the file, unique over rotations; empty: the file that is written now."""
    offset: int
    """Bytes from the begin of this file. A place behind its end is in the file after it."""

    def __str__(self) -> str:
        return f"{self.file}-{self.offset}" if self.file else str(self.offset)

    @classmethod
    def parse(cls, text: str) -> LogPosition | None:
        """The place that a text names; None: it names none."""
        match = _TEXT.fullmatch(text)
        return None if match is None else cls(match["file"] or "", int(match["offset"]))

    def before(self, size: int) -> LogPosition:
        """The place so many bytes before this one, in the same file."""
        return LogPosition(self.file, max(0, self.offset - size))


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a log."""

    data: bytes
    end: LogPosition
    """The place after the last byte."""
