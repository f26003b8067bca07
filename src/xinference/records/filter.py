"""Chooses records for one page of a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from xinference.records.record import Record


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """The records of a page; None: any value."""

    key_id: str | None = None
    model: str | None = None
    path: str | None = None
    stream: bool | None = None
    statuses: tuple[int, int] | None = None
    """The lowest and the highest status."""
    code: str | None = None
    min_seconds: float = 0.0
    """The least time that the request took."""
    after: str | None = None
    """Only records that are newer than the one of this id; of an id that is not known, all records are newer."""
    before: str | None = None
    """Only records that are older than the one of this id; of an id that is not known, none is older."""

    def page(self, newest: Iterable[Record], limit: int) -> list[Record]:
        """At most `limit` of these records, which are in the order in which they ended, newest first."""
        return list(islice((record for record in self._span(newest) if self._fits(record)), limit))

    def _span(self, newest: Iterable[Record]) -> Iterator[Record]:
        is_older = self.before is None
        for record in newest:
            if record.request_id == self.after:
                return
            if is_older:
                yield record
            elif record.request_id == self.before:
                is_older = True

    def _fits(self, record: Record) -> bool:
        low, high = self.statuses or (0, 999)
        return (
            self.key_id in (None, record.key_id)
            and self.model in (None, record.model)
            and self.path in (None, record.path)
            and self.stream in (None, record.stream)
            and self.code in (None, record.code)
            and low <= record.status <= high
            and record.total >= self.min_seconds
        )
