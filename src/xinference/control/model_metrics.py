"""The states of models and the counts of their loads, unloads and restarts, as metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from xinference.control.controller import Controller
from xinference.deployments.counts import Counts
from xinference.deployments.deployment import Deployment
from xinference.records.amounts import Histogram


def collect(controller: Controller) -> Iterator[Metric]:
    """All metrics of models. The counts of a model end with it."""
    deployments = [each for each in controller.deployments() if isinstance(each, Deployment)]
    uids = frozenset(each.uid for each in deployments)
    controller.counts.keep(uids)
    yield _info(deployments)
    yield from _counts(controller.counts, uids)
    yield from _followers(controller.counts)


def _info(deployments: Iterable[Deployment]) -> Metric:
    info = GaugeMetricFamily(
        "xinference_model_info", "1 for each model", labels=("model", "engine", "format", "quantization", "version")
    )
    for each in deployments:
        plan = each.snapshot.plan
        version = plan.version
        info.add_metric((each.uid, plan.engine, version.spec.model_format, version.quantization, version.version_id), 1)
    return info


def _counts(counts: Counts, uids: Iterable[str]) -> Iterator[Metric]:
    restarts = CounterMetricFamily(
        "xinference_replica_restarts", "Engines that were started again after they had exited", labels=("model",)
    )
    for uid in uids:
        restarts.add_metric((uid,), counts.restarts[uid])
    loads = HistogramMetricFamily("xinference_load_seconds", "From the begin of a load to its end", labels=("model",))
    for uid, histogram in counts.loads.items():
        loads.add_metric((uid,), buckets(histogram), histogram.total)
    unloads = CounterMetricFamily(
        "xinference_unloads", "Models that were unloaded, and why", labels=("model", "reason")
    )
    for (uid, reason), count in counts.unloads.items():
        unloads.add_metric((uid, reason), count)
    downloaded = CounterMetricFamily(
        "xinference_download_bytes", "Bytes of models that were downloaded", labels=("hub",)
    )
    for hub, size in counts.downloaded.items():
        downloaded.add_metric((hub,), size)
    return iter((restarts, loads, unloads, downloaded))


def _followers(counts: Counts) -> Iterator[Metric]:
    yield GaugeMetricFamily("xinference_watchers", "Followers of /v1/watch", value=counts.followers)
    text = "Times that a follower of /v1/watch was too slow, and got resync in place of what it had missed"
    yield CounterMetricFamily("xinference_watch_dropped", text, value=counts.lost_changes)


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """The buckets of a histogram in the form of the library, which counts each value in all larger buckets, too."""
    counts = histogram.counts
    below = [sum(counts[: n + 1]) for n in range(len(counts))]
    bounds = (*map(str, histogram.bounds), "+Inf")
    return [(bound, float(count)) for bound, count in zip(bounds, below, strict=True)]
