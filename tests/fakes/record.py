"""Reads what has reached a fake engine that records."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """One POST that has reached an engine."""

    path: str
    """With the query."""
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Record:
    """The requests in the file of a fake engine's option ``record``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read = 0

    def take(self) -> list[Recorded]:
        """The requests since the last call; the engine writes each one before it answers it."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as file:
            file.seek(self._read)
            lines = file.readlines()
            self._read = file.tell()
        return [_recorded(json.loads(line)) for line in lines]


def _recorded(entry: dict[str, Any]) -> Recorded:
    return Recorded(entry["path"], entry["headers"], base64.b64decode(entry["body_base64"]))
