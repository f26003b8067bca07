"""Metrics for Prometheus: counted by a few additions at a request's end, and formatted when they are requested."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_PLAIN_1_0_0, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from xinference import __version__
from xinference.routing.interfaces import ReplicaLoad
from xinference.routing.table import Route, RoutingTable, owner_of

CONTENT_TYPE = CONTENT_TYPE_PLAIN_1_0_0.encode()
#: Upper bounds of the histogram in seconds, for whole answers and streams.
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
#: The status of a request whose client left before its answer began.
CLIENT_LEFT = 499
#: Time for which the counts of a model stay after it is gone, in seconds: scrapers read the last ones.
GONE_SECONDS = 900.0
#: Minimum number of series of requests before those of models that are gone are removed without a scrape.
MIN_SWEEP = 512


@dataclass(frozen=True)
class Counts:
    """The counts of an interval."""

    requests: list[tuple[str, str, int, int]]
    """Model, path, status, count."""
    seconds: list[tuple[str, str, list[int], float]]
    """Model, path, counts by `BUCKETS`, sum."""
    tokens: dict[str, int]


class Metrics(Collector):
    """Counts since the server's start, by model and path. The model of a request for an unknown model is empty.

    The library's own counters cost some microseconds per request, so this class counts, and the library only formats.
    """

    def __init__(
        self,
        table: Callable[[], RoutingTable],
        load: Callable[[], ReplicaLoad],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now_seconds = now
        self._gone_since: dict[str, float] = {}
        """The models with counts that are not in the routing table, with the time since which they are missing."""
        self._sweep_at = MIN_SWEEP
        self._table = table
        self._load = load
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self._seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._tokens: Counter[str] = Counter()
        # Not the library's default registry, which the whole process shares.
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def count_request(self, model: str, path: str, status: int, seconds: float) -> None:
        """Count a request that has ended; `model` is empty if the request named no known model."""
        self._requests[model, path, status or CLIENT_LEFT] += 1
        self._buckets[model, path][bisect_left(BUCKETS, seconds)] += 1
        self._seconds[model, path] += seconds
        if len(self._requests) > self._sweep_at:
            self._sweep()

    def count_tokens(self, model: str, tokens: int) -> None:
        """Count the tokens of an answer."""
        self._tokens[model] += tokens

    def take(self) -> Counts:
        """Return the counts since the last call, and reset them."""
        counted = Counts(
            [(*key, count) for key, count in self._requests.items()],
            [(*key, counts, self._seconds[key]) for key, counts in self._buckets.items()],
            dict(self._tokens),
        )
        self._requests.clear()
        self._buckets.clear()
        self._seconds.clear()
        self._tokens.clear()
        return counted

    def add(self, counted: Counts) -> None:
        """Add the counts of another process."""
        for model, path, status, count in counted.requests:
            self._requests[model, path, status] += count
        for model, path, counts, seconds in counted.seconds:
            buckets = self._buckets[model, path]
            buckets[:] = [a + b for a, b in zip(buckets, counts, strict=True)]
            self._seconds[model, path] += seconds
        self._tokens.update(counted.tokens)
        if len(self._requests) > self._sweep_at:
            self._sweep()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The counts, and the current state by the routing table."""
        self._sweep()
        yield from self._counters()
        yield from self._gauges()

    def _sweep(self) -> None:
        """Remove the counts of models that are terminated for `GONE_SECONDS`, so that their number is limited."""
        now, routes = self._now_seconds(), self._table().routes
        counted = {model for model, _, _ in self._requests} | self._tokens.keys()
        gone = {model for model in counted if model and model not in routes}
        self._gone_since = {model: self._gone_since.get(model, now) for model in gone}
        old = {model for model, since in self._gone_since.items() if now - since >= GONE_SECONDS}
        if old:
            self._requests = Counter({key: n for key, n in self._requests.items() if key[0] not in old})
            for key in [key for key in self._buckets if key[0] in old]:
                del self._buckets[key], self._seconds[key]
            for model in old:
                del self._gone_since[model]
                self._tokens.pop(model, None)
        self._sweep_at = max(MIN_SWEEP, 2 * len(self._requests))

    def _counters(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "xinference_requests", "Inference requests that have ended", labels=("model", "path", "status")
        )
        for (model, path, status), count in self._requests.items():
            requests.add_metric((model, path, str(status)), count)
        seconds = HistogramMetricFamily(
            "xinference_request_seconds", "From a request's head to the end of its answer", labels=("model", "path")
        )
        for key, counts in self._buckets.items():
            below = [sum(counts[: n + 1]) for n in range(len(counts))]
            named = zip((*map(str, BUCKETS), "+Inf"), below, strict=True)
            seconds.add_metric(key, [(name, float(count)) for name, count in named], self._seconds[key])
        tokens = CounterMetricFamily(
            "xinference_tokens",
            "Tokens of prompts and answers, counted only for keys with a limit of tokens",
            labels=("model",),
        )
        for model, count in self._tokens.items():
            tokens.add_metric((model,), count)
        return iter((requests, seconds, tokens))

    def _gauges(self) -> Iterator[Metric]:
        load = self._load()
        info = GaugeMetricFamily("xinference_info", "The server", labels=("version",))
        info.add_metric((__version__,), 1)
        in_flight = GaugeMetricFamily("xinference_requests_in_flight", "Requests at engines now", labels=("model",))
        replicas = GaugeMetricFamily("xinference_replicas_ready", "Replicas that answer", labels=("model",))
        state = GaugeMetricFamily(
            "xinference_model_state", "1 for the state that a model is in", labels=("model", "state")
        )
        for uid, route in self._table().routes.items():
            if owner_of(uid, route) is not None:  # an adapter or an alias has its deployment's engine
                continue
            in_flight.add_metric((uid,), sum(load.at(target.replica_id) for target in route.targets))
            replicas.add_metric((uid,), len(route.targets))
            state.add_metric((uid, _state(route)), 1)
        return iter((info, in_flight, replicas, state))


def _state(route: Route) -> str:
    if route.targets:
        return "ready"
    if route.problem is not None:
        return "failed"
    return "unloaded" if route.unloaded else "recovering" if route.recovering else "loading"
