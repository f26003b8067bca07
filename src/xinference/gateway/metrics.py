"""Metrics for Prometheus, formatted when they are requested, from the totals of the records and the routing table."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from prometheus_client import CONTENT_TYPE_PLAIN_1_0_0, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from xinference import __version__
from xinference.config import Settings
from xinference.gateway import request_metrics
from xinference.records.hub import RecordHub
from xinference.records.key_counts import KeyCounts
from xinference.records.totals import Totals
from xinference.routing.active_requests import ActiveRequest
from xinference.routing.interfaces import ReplicaLoad
from xinference.routing.table import Route, RoutingTable, owner_of

CONTENT_TYPE = CONTENT_TYPE_PLAIN_1_0_0.encode()
#: Time for which the counts of a model or a replica stay after it is gone, in seconds: scrapers read the last ones.
GONE_SECONDS = 900.0

Source = Callable[[], Awaitable[Iterable[Metric]]]
"""Further metrics, of what the gateway does not know."""


def _one_process() -> Mapping[str, int]:
    return {"serving": 1}


def key_counts(settings: Settings, hub: RecordHub) -> KeyCounts | None:
    """The counts of each key, if the settings ask for them: they cost each request a microsecond."""
    if not settings.metrics_per_key:
        return None
    counts = KeyCounts()
    hub.subscribe(counts.add)
    return counts


class Metrics:
    """Counts since the server's start, by model and path. The model of a request for an unknown model is empty.

    The library's own counters cost some microseconds per request, so `Totals` counts, and the library only formats.
    """

    def __init__(
        self,
        table: Callable[[], RoutingTable],
        load: Callable[[], ReplicaLoad],
        totals: Totals,
        now: Callable[[], float] = time.monotonic,
        *,
        active: Callable[[], Iterable[ActiveRequest]] = tuple,
        affinity: Callable[[], Iterable[tuple[str, str, int]]] = tuple,
        processes: Callable[[], Mapping[str, int]] = _one_process,
        keys: KeyCounts | None = None,
    ) -> None:
        """
        Args:
            active: the requests that have not ended.
            affinity: see `Balancer.take_affinity`.
            processes: the number of gateway processes by state.
            keys: the counts of each key; None: they are not shown.
        """
        self._now_seconds = now
        self._gone_since: dict[tuple[str, ...], float] = {}
        """The models and replicas with counts that are not in the routing table, and since when they are missing."""
        self._table = table
        self._load = load
        self._totals = totals
        self._active = active
        self._take_affinity = affinity
        self._affinity: Counter[tuple[str, str]] = Counter()
        self._model_of: dict[str, str] = {}
        """The model of each replica that has been in the routing table lately."""
        self._processes = processes
        self._keys = keys
        self._sources: list[Source] = []
        self._process = ProcessCollector(registry=None)

    def add(self, source: Source) -> None:
        """Show further metrics, too."""
        self._sources.append(source)

    def text(self) -> bytes:
        """The gateway's metrics in Prometheus' text format."""
        return _text(list(self.collect()))

    async def scrape(self) -> bytes:
        """All metrics in Prometheus' text format, formatted in a thread: the event loop also serves requests."""
        metrics = list(self.collect())
        for source in self._sources:
            metrics.extend(await source())
        return await asyncio.to_thread(_text, metrics)

    def collect(self) -> Iterator[Metric]:
        """The counts, and the current state by the routing table."""
        self.remove_old()
        yield from request_metrics.families(self._totals.since_start())
        yield request_metrics.of_replicas(self._totals.by_replica)
        if self._keys is not None:
            yield from request_metrics.of_keys(self._keys)
        yield self._affinities()
        yield from self._gauges()
        yield self._waiting()
        yield _by_state(self._processes())
        yield from self._process.collect()

    def remove_old(self) -> None:
        """Remove the counts of what is gone for `GONE_SECONDS`, so that their number is limited."""
        self._count_affinity()
        now, routes = self._now_seconds(), self._table().routes
        present: set[tuple[str, ...]] = {(uid,) for uid in routes}
        present |= {(uid, target.replica_id) for uid, route in routes.items() for target in route.targets}
        counted: set[tuple[str, ...]] = {(series.model,) for series in self._totals.since_start() if series.model}
        counted |= set(self._totals.by_replica)
        counted |= {(model,) for model, _ in self._affinity}
        self._gone_since = {key: self._gone_since.get(key, now) for key in counted - present}
        old = {key for key, since in self._gone_since.items() if now - since >= GONE_SECONDS}
        if not old:
            return
        self._totals.forget(key[0] for key in old if len(key) == 1)
        self._totals.forget_replicas(key[1] for key in old if len(key) == 2)
        self._affinity = Counter({key: count for key, count in self._affinity.items() if (key[0],) not in old})
        self._gone_since = {key: since for key, since in self._gone_since.items() if key not in old}

    def _count_affinity(self) -> None:
        routes = self._table().routes.values()
        now = {target.replica_id: route.parent or route.uid for route in routes for target in route.targets}
        known = self._model_of | now
        for replica, result, count in self._take_affinity():
            if replica in known:
                self._affinity[known[replica], result] += count
        self._model_of = now

    def _affinities(self) -> Metric:
        family = CounterMetricFamily(
            "xinference_affinity",
            "Choices among several replicas: one that knows the prompt's beginning, one with fewer requests, or a new "
            "prompt",
            labels=("model", "result"),
        )
        for labels, count in self._affinity.items():
            family.add_metric(labels, count)
        return family

    def _waiting(self) -> Metric:
        waiting: Counter[tuple[str, str]] = Counter()
        for each in self._active():
            if each.waits_for:
                waiting[each.model, each.waits_for] += 1
        family = GaugeMetricFamily("xinference_requests_waiting", "Requests that wait now", labels=("model", "for"))
        for labels, count in waiting.items():
            family.add_metric(labels, count)
        return family

    def _gauges(self) -> Iterator[Metric]:
        load = self._load()
        info = GaugeMetricFamily("xinference_info", "The server", labels=("version",))
        info.add_metric((__version__,), 1)
        by_replica = ("model", "replica")
        in_flight = GaugeMetricFamily(
            "xinference_requests_in_flight", "Requests at each replica now", labels=by_replica
        )
        up = GaugeMetricFamily("xinference_replica_up", "1 for each replica that answers", labels=by_replica)
        replicas = GaugeMetricFamily("xinference_replicas_ready", "Replicas that answer", labels=("model",))
        state = GaugeMetricFamily(
            "xinference_model_state", "1 for the state that a model is in", labels=("model", "state")
        )
        for uid, route in self._table().routes.items():
            if owner_of(uid, route) is not None:  # an adapter or an alias has its deployment's engine
                continue
            for target in route.targets:
                up.add_metric((uid, target.replica_id), 1)
                in_flight.add_metric((uid, target.replica_id), load.at(target.replica_id))
            replicas.add_metric((uid,), len(route.targets))
            state.add_metric((uid, _state(route)), 1)
        return iter((info, in_flight, replicas, state, up))


class _Collected(Collector):
    """Metrics that were collected already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _text(metrics: Iterable[Metric]) -> bytes:
    return generate_latest(_Collected(metrics))


def _by_state(processes: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily("xinference_gateway_processes", "Processes that serve requests", labels=("state",))
    for state, count in processes.items():
        family.add_metric((state,), count)
    return family


def _state(route: Route) -> str:
    if route.targets:
        return "ready"
    if route.problem is not None:
        return "failed"
    return "unloaded" if route.unloaded else "recovering" if route.recovering else "loading"
