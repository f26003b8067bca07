"""The topics of requests and of their rates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from xinference.control.watch.rows import Reading, Row, encode
from xinference.records.hub import RecordHub
from xinference.records.rates import Rates
from xinference.records.record import LOCAL_NODE, Record
from xinference.records.view import record_view
from xinference.routing.active_requests import ActiveRequest, ActiveRequests, active_view

#: Maximum number of requests of one key in an event, of those that run and of those that have ended.
MAX_REQUESTS = 200
#: The finest points of the rates.
_STEP = 2.0

Names = Callable[[], Mapping[str, str]]
"""Returns the names of the keys by id."""


class RateReader(Protocol):
    """The sampler, as this source reads it."""

    async def read(self) -> Rates: ...


class RequestSource:
    """The requests that run, a row for each key; and those that have ended, in events of their own."""

    topic, seconds, is_list = "requests", 1.0, True

    def __init__(self, hub: RecordHub, running: ActiveRequests, names: Names) -> None:
        self._hub = hub
        self._running = running
        self._names = names
        self._newest: str | None = None
        self._begun = False

    async def read(self) -> Reading:
        active = await self._running.active()  # the records of those that have ended come with it
        ended, omitted = self._hub.since(self._newest, MAX_REQUESTS)
        if ended:
            self._newest = ended[-1].request_id
        if not self._begun:  # what ended before the first follower is in GET /v1/requests
            ended, omitted, self._begun = [], 0, True
        names = self._names()
        return Reading(tuple(_active_rows(active, names)), tuple(_ended_rows(ended, omitted, names)))


def _active_rows(active: list[ActiveRequest], names: Mapping[str, str]) -> list[Row]:
    groups: dict[str, list[ActiveRequest]] = defaultdict(list)
    for each in active:
        groups[each.key_id].append(each)
    rows = []
    for key_id, group in groups.items():
        name = names.get(key_id)
        requests = [active_view(each, name) for each in group[:MAX_REQUESTS]]
        gone = ("active", encode(_group(key_id, name, total=0, requests=[])))
        data = encode(_group(key_id, name, total=len(group), requests=requests))
        rows.append(Row(key_id, "active", data, key_id=key_id, gone=gone))
    return rows


def _ended_rows(ended: list[Record], omitted: int, names: Mapping[str, str]) -> list[Row]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in ended:
        groups[record.key_id].append(record)
    rows = []
    for key_id, group in groups.items():
        name = names.get(key_id)
        requests = [record_view(record, name) for record in group]
        data = encode(_group(key_id, name, complete=not omitted, requests=requests))
        rows.append(Row(key_id, "ended", data, key_id=key_id))
    return rows


def _group(key_id: str, name: str | None, **more: Any) -> dict[str, Any]:
    return {"node": LOCAL_NODE, "key": name, "key_id": key_id or None, **more}


class StatsSource:
    """The newest rates of requests, and the load of the machine."""

    topic, seconds, is_list = "stats", 1.0, False

    def __init__(self, sampler: RateReader) -> None:
        self._sampler = sampler

    async def read(self) -> Reading:
        rates = await self._sampler.read()
        newest = rates.newest(_STEP)
        if newest is None:
            return Reading(())
        models = {name: series for name, series in newest.models.items() if name}
        data = {
            "node": LOCAL_NODE,
            "time": newest.time,
            "all": newest.models[""],
            "models": models,
            "host": newest.host,
        }
        return Reading((Row("", "stats", encode(data)),))
