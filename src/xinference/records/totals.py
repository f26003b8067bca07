"""The totals of records: of each minute by model and key, and since the server's start by model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from xinference.records.amounts import Amounts
from xinference.records.record import Record

#: Minutes that are kept until they are stored; of more, the oldest is lost.
MINUTES_KEPT = 60


class Subject(NamedTuple):
    """What the totals of a minute are separated by."""

    model: str
    key_id: str
    path: str
    status: int
    stream: bool


class Series(NamedTuple):
    """What the totals since the start are separated by."""

    model: str
    path: str
    status: int
    stream: bool


@dataclass(frozen=True, slots=True)
class MinuteTotals:
    """The totals of one minute."""

    minute: int
    """Minutes since the epoch, by the end of the requests."""
    amounts: dict[Subject, Amounts]


class Totals:
    """Adds up records; used from one event loop, so it needs no lock."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._ended: list[MinuteTotals] = []
        self._amounts: dict[tuple[str, str, str, int, bool], Amounts] = {}
        self._minute_ends = 0.0
        self._since_start: dict[Series, Amounts] = {}
        self.by_replica: Counter[tuple[str, str]] = Counter()
        """The requests that have ended since the start, by model and replica."""

    def add(self, record: Record) -> None:
        """Add a record to the minute in which its request ended."""
        if record.started + record.total >= self._minute_ends:
            self._begin_minute(record.started + record.total)
        subject = (record.model, record.key_id, record.path, record.status, record.stream)
        try:
            amounts = self._amounts[subject]
        except KeyError:
            amounts = self._amounts[subject] = Amounts()
        amounts.add(record)
        if record.replica:
            self.by_replica[record.model, record.replica] += 1

    def _begin_minute(self, at: float) -> None:
        self._end_minute()
        self._minute_ends = (at // 60 + 1) * 60

    def _end_minute(self) -> None:
        if not self._amounts:
            return
        ended = MinuteTotals(self._minute, _by_subject(self._amounts))
        self._amounts = {}
        for subject, amounts in ended.amounts.items():
            series = Series(subject.model, subject.path, subject.status, subject.stream)
            self._since_start.setdefault(series, Amounts()).merge(amounts)
        self._ended = merged([*self._ended, ended])[-MINUTES_KEPT:]

    @property
    def _minute(self) -> int:
        return int(self._minute_ends) // 60 - 1

    def take(self, *, current: bool = False) -> list[MinuteTotals]:
        """The totals of the minutes that have ended and were not taken before; `current`: also of this minute."""
        now = int(self._now()) // 60
        self._end_minute()
        taken = [minute for minute in self._ended if current or minute.minute < now]
        self._ended = [minute for minute in self._ended if not current and minute.minute >= now]
        return taken

    def give_back(self, minutes: Iterable[MinuteTotals]) -> None:
        """Keep totals that were taken and could not be stored."""
        self._ended = merged([*minutes, *self._ended])[-MINUTES_KEPT:]

    def waiting(self) -> list[MinuteTotals]:
        """The totals that were not taken yet, with those of this minute."""
        self._end_minute()
        return self._ended

    def since_start(self) -> dict[Series, Amounts]:
        """The totals since the server's start, or since `forget`."""
        self._end_minute()
        return self._since_start

    def forget(self, models: Iterable[str]) -> None:
        """Remove the totals since the start of these models."""
        gone = frozenset(models)
        self._since_start = {
            series: amounts for series, amounts in self._since_start.items() if series.model not in gone
        }

    def forget_replicas(self, replicas: Iterable[str]) -> None:
        """Remove the counts of these replicas."""
        gone = frozenset(replicas)
        self.by_replica = Counter({key: count for key, count in self.by_replica.items() if key[1] not in gone})


def _by_subject(amounts: Mapping[tuple[str, str, str, int, bool], Amounts]) -> dict[Subject, Amounts]:
    return {Subject(*subject): each for subject, each in amounts.items()}


def merged(minutes: Iterable[MinuteTotals]) -> list[MinuteTotals]:
    """The totals with one entry for each minute, oldest first."""
    by_minute: dict[int, dict[Subject, Amounts]] = {}
    for totals in sorted(minutes, key=lambda each: each.minute):
        of_minute = by_minute.setdefault(totals.minute, {})
        for subject, amounts in totals.amounts.items():
            of_minute.setdefault(subject, Amounts()).merge(amounts)
    return [MinuteTotals(minute, amounts) for minute, amounts in by_minute.items()]
