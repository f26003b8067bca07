"""The totals of requests as metrics for Prometheus. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from xinference.records.amounts import WAITS, Amounts, Histogram
from xinference.records.key_counts import KeyCounts
from xinference.records.totals import Series

Labels = TypeVar("Labels", bound=Hashable)


def families(since_start: Mapping[Series, Amounts]) -> Iterator[Metric]:
    """All metrics of the totals since the server's start."""
    yield from _requests(since_start)
    by_model = _summed(since_start, lambda series: series.model)
    yield from _tokens(by_model)
    yield _waits(by_model)
    # The semantic conventions measure both of successful answers only.
    answered = {series: amounts for series, amounts in since_start.items() if series.status == 200}
    yield from _speeds(_summed(answered, lambda series: series.model))


def of_replicas(counts: Mapping[tuple[str, str], int]) -> Metric:
    """The requests of each replica."""
    family = CounterMetricFamily(
        "xinference_replica_requests", "Requests that have ended at each replica", labels=("model", "replica")
    )
    for labels, count in counts.items():
        family.add_metric(labels, count)
    return family


def of_keys(counts: KeyCounts) -> Iterator[Metric]:
    """The requests and tokens of each key."""
    for name, text, values in (
        ("requests", "Requests of each key that have ended", counts.requests),
        ("tokens", "Tokens of prompts and answers of each key", counts.tokens),
    ):
        family = CounterMetricFamily(f"xinference_key_{name}", text, labels=("key",))
        for key, count in values.items():
            family.add_metric((key,), count)
        yield family


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
