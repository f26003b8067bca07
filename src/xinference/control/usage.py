"""The usage of models and keys: the totals in the store, with those of the last minutes, which are not stored yet."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from xinference.errors import Problem
from xinference.records.amounts import Amounts
from xinference.records.totals import Subject, Totals
from xinference.store.database import Store
from xinference.store.usage import Group, add_usage, read_usage

log = logging.getLogger(__name__)

STORE_SECONDS = 60.0
#: Minutes of one group of time.
_MINUTES = {"minute": 1, "hour": 60, "day": 1440}


class Usage:
    """Stores the totals each minute, and reads them."""

    def __init__(self, store: Store, totals: Totals, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._totals = totals
        self._now = now
        self._failing = False

    async def store_periodically(self, also: Callable[[], None]) -> None:
        """Store the minutes that have ended, until cancelled; `also` is called each time."""
        while True:
            await asyncio.sleep(STORE_SECONDS)
            self.flush()
            also()

    def flush(self, *, current: bool = False) -> None:
        """Store the minutes that have ended, and with `current` the current one. If that fails, they are kept."""
        totals = self._totals.take(current=current)
        if not totals:
            return
        try:
            add_usage(self._store, totals, self._now())
        except Problem as problem:
            self._totals.give_back(totals)
            if not self._failing:
                log.warning("%s The usage of requests is kept in memory until it can be stored.", problem.cause)
            self._failing = True
        else:
            self._failing = False

    def read(
        self,
        groups: Sequence[Group],
        begin: float,
        end: float,
        *,
        key_id: str | None = None,
        model: str | None = None,
    ) -> dict[tuple[Any, ...], Amounts]:
        """The totals by the values of `groups`; a time is the first minute of its group since the epoch.

        Args:
            begin, end: seconds since the epoch; the minutes that contain them are included.
            key_id, model: of this one only.

        Raises:
            Problem: the rows cannot be read.
        """
        first, after = int(begin // 60), int(end // 60) + 1
        found = read_usage(self._store, groups, first, after, key_id=key_id, model=model)
        for totals in self._totals.waiting():
            if not first <= totals.minute < after:
                continue
            for subject, amounts in totals.amounts.items():
                if key_id in (None, subject.key_id) and model in (None, subject.model):
                    group = tuple(_value(group, totals.minute, subject) for group in groups)
                    found.setdefault(group, Amounts()).merge(amounts)
        return dict(sorted(found.items()))


def _value(group: Group, minute: int, subject: Subject) -> str | int:
    match group:
        case "model":
            return subject.model
        case "key":
            return subject.key_id
        case "path":
            return subject.path
        case "status":
            return subject.status
        case _:
            return minute // _MINUTES[group] * _MINUTES[group]
