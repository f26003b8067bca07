"""Metrics for Prometheus, formatted when they are requested, from the totals of the records and the routing table."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_PLAIN_1_0_0, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from xinference import __version__
from xinference.records.amounts import WAITS, Amounts, Histogram
from xinference.records.totals import Series, Totals
from xinference.routing.interfaces import ReplicaLoad
from xinference.routing.table import Route, RoutingTable, owner_of

CONTENT_TYPE = CONTENT_TYPE_PLAIN_1_0_0.encode()
#: Time for which the counts of a model stay after it is gone, in seconds: scrapers read the last ones.
GONE_SECONDS = 900.0

Labels = TypeVar("Labels", bound=Hashable)


class Metrics(Collector):
    """Counts since the server's start, by model and path. The model of a request for an unknown model is empty.

    The library's own counters cost some microseconds per request, so `Totals` counts, and the library only formats.
    """

    def __init__(
        self,
        table: Callable[[], RoutingTable],
        load: Callable[[], ReplicaLoad],
        totals: Totals,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now_seconds = now
        self._gone_since: dict[str, float] = {}
        """The models with counts that are not in the routing table, with the time since which they are missing."""
        self._table = table
        self._load = load
        self._totals = totals
        # Not the library's default registry, which the whole process shares.
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The counts, and the current state by the routing table."""
        self.remove_old()
        since_start = self._totals.since_start()
        yield from _requests(since_start)
        by_model = _summed(since_start, lambda series: series.model)
        yield from _tokens(by_model)
        yield _waits(by_model)
        # The semantic conventions measure both of successful answers only.
        answered = {series: amounts for series, amounts in since_start.items() if series.status == 200}
        yield from _speeds(_summed(answered, lambda series: series.model))
        yield from self._gauges()

    def remove_old(self) -> None:
        """Remove the counts of models that are terminated for `GONE_SECONDS`, so that their number is limited."""
        now, routes = self._now_seconds(), self._table().routes
        counted = {series.model for series in self._totals.since_start()}
        gone = {model for model in counted if model and model not in routes}
        self._gone_since = {model: self._gone_since.get(model, now) for model in gone}
        old = {model for model, since in self._gone_since.items() if now - since >= GONE_SECONDS}
        if old:
            self._totals.forget(old)
            self._gone_since = {model: since for model, since in self._gone_since.items() if model not in old}

    def _gauges(self) -> Iterator[Metric]:
        load = self._load()
        info = GaugeMetricFamily("xinference_info", "The server", labels=("version",))
        info.add_metric((__version__,), 1)
        in_flight = GaugeMetricFamily("xinference_requests_in_flight", "Requests at engines now", labels=("model",))
        by_replica = ("model", "replica")
        up = GaugeMetricFamily("xinference_replica_up", "1 for each replica that answers", labels=by_replica)
        at_replica = GaugeMetricFamily(
            "xinference_replica_requests_in_flight", "Requests at each replica now", labels=by_replica
        )
        replicas = GaugeMetricFamily("xinference_replicas_ready", "Replicas that answer", labels=("model",))
        state = GaugeMetricFamily(
            "xinference_model_state", "1 for the state that a model is in", labels=("model", "state")
        )
        for uid, route in self._table().routes.items():
            if owner_of(uid, route) is not None:  # an adapter or an alias has its deployment's engine
                continue
            for target in route.targets:
                up.add_metric((uid, target.replica_id), 1)
                at_replica.add_metric((uid, target.replica_id), load.at(target.replica_id))
            in_flight.add_metric((uid,), sum(load.at(target.replica_id) for target in route.targets))
            replicas.add_metric((uid,), len(route.targets))
            state.add_metric((uid, _state(route)), 1)
        return iter((info, in_flight, replicas, state, up, at_replica))


def _summed(series: Mapping[Series, Amounts], labels: Callable[[Series], Labels]) -> dict[Labels, Amounts]:
    summed: dict[Labels, Amounts] = {}
    for each, amounts in series.items():
        summed.setdefault(labels(each), Amounts()).merge(amounts)
    return summed


def _requests(since_start: Mapping[Series, Amounts]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "xinference_requests", "Inference requests that have ended", labels=("model", "path", "status")
    )
    for (model, path, status), amounts in _summed(since_start, lambda each: each[:3]).items():
        requests.add_metric((model, path, str(status)), amounts.requests)
    yield requests
    seconds = _histograms(
        "xinference_request_seconds",
        "From a request's head to the end of its answer",
        ("model", "path", "stream"),
    )
    of_path = _summed(since_start, lambda each: (each.model, each.path, "true" if each.stream else "false"))
    for labels, amounts in of_path.items():
        _add(seconds, labels, amounts.seconds)
    yield seconds


def _tokens(by_model: Mapping[str, Amounts]) -> Iterator[Metric]:
    prompt, output, cached, estimated, all_tokens = (
        CounterMetricFamily(f"xinference_{name}", text, labels=("model",))
        for name, text in (
            ("prompt_tokens", "Tokens of prompts, as the engines reported them"),
            ("output_tokens", "Tokens of answers; estimated where an engine did not report them"),
            ("cached_prompt_tokens", "Those tokens of prompts that were in an engine's cache"),
            ("estimated_answers", "Answers whose tokens the engine did not report"),
            ("tokens", "Tokens of prompts and answers; use the separate counts, as this one will be removed"),
        )
    )
    for model, amounts in by_model.items():
        prompt.add_metric((model,), amounts.prompt)
        output.add_metric((model,), amounts.output)
        cached.add_metric((model,), amounts.cached)
        estimated.add_metric((model,), amounts.estimated)
        all_tokens.add_metric((model,), amounts.prompt + amounts.output)
    return iter((prompt, output, cached, estimated, all_tokens))


def _waits(by_model: Mapping[str, Amounts]) -> Metric:
    waits = _histograms("xinference_wait_seconds", "What requests waited for, and how long", ("model", "for"))
    for model, amounts in by_model.items():
        for name in WAITS:
            if amounts.waits is not None and name in amounts.waits:
                _add(waits, (model, name), amounts.waits[name])
    return waits


def _speeds(by_model: Mapping[str, Amounts]) -> Iterator[Metric]:
    first = _histograms(
        "xinference_time_to_first_token_seconds", "From a request's head to the first content of a stream", ("model",)
    )
    each = _histograms("xinference_time_per_output_token_seconds", "Between two tokens of a stream", ("model",))
    for model, amounts in by_model.items():
        if amounts.first_token is not None and amounts.per_token is not None:
            _add(first, (model,), amounts.first_token)
            _add(each, (model,), amounts.per_token)
    return iter((first, each))


def _histograms(name: str, text: str, labels: tuple[str, ...]) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, labels=labels)


def _add(family: HistogramMetricFamily, labels: Iterable[str], histogram: Histogram) -> None:
    counts = histogram.counts
    below = [sum(counts[: n + 1]) for n in range(len(counts))]
    named = zip((*map(str, histogram.bounds), "+Inf"), below, strict=True)
    family.add_metric(tuple(labels), [(name, float(count)) for name, count in named], histogram.total)


def _state(route: Route) -> str:
    if route.targets:
        return "ready"
    if route.problem is not None:
        return "failed"
    return "unloaded" if route.unloaded else "recovering" if route.recovering else "loading"
