"""The content of a topic at one time, as rows, and the changes between two times. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of a topic: a model, a download. Its event has the whole row."""

    key: str
    """Unique in its topic."""
    name: str
    """The name of the event that it has changed."""
    data: bytes
    """JSON."""
    model: str | None = None
    key_id: str | None = None
    gone: tuple[str, bytes] | None = None
    """The name and the data of the event that it is gone; None: there is none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source has read."""

    rows: tuple[Row, ...]
    notes: tuple[Row, ...] = ()
    """What has happened since the last reading; it is in no snapshot."""


class Source(Protocol):
    """Reads one topic. It is asked only while somebody follows the topic."""

    topic: str
    seconds: float
    """Time between two readings."""
    is_list: bool
    """Whether the snapshot has a list of rows, or one row."""

    async def read(self) -> Reading: ...


@dataclass(slots=True)
class TopicState:
    """The last reading of a topic."""

    is_list: bool
    rows: Mapping[str, Row] = field(default_factory=dict)

    def changes(self, new: Iterable[Row]) -> Iterator[Row]:
        """Replace the rows; yields those that changed, and for those that are gone a row with that event."""
        before, self.rows = self.rows, {row.key: row for row in new}
        for key, row in before.items():
            if key not in self.rows and row.gone is not None:
                yield Row(key, *row.gone, row.model, row.key_id)
        for key, row in self.rows.items():
            old = before.get(key)
            if old is None or old.data != row.data:
                yield row

    def data(self, rows: Iterable[Row]) -> bytes:
        """The JSON of some rows in a snapshot."""
        each = [row.data for row in rows]
        if self.is_list:
            return b"[" + b",".join(each) + b"]"
        return each[0] if each else b"null"


def encode(value: Mapping[str, Any]) -> bytes:
    """JSON without a line end."""
    return _encode(value)
