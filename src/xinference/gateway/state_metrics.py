"""The metrics of saved states of prompts, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from xinference.engines.request_placement import StateFigures

_COUNTERS = (
    ("saved", "prompt_states_saved", "States of prompts that an engine has saved"),
    ("restored", "prompt_states_restored", "States of prompts that an engine has restored for a request"),
    ("direct", "prompt_states_direct", "Requests whose beginning was in the slot that they got"),
    ("waited", "prompt_states_waited", "Requests that waited until an equal beginning was computed"),
)
_GAUGES = (
    ("states", "prompt_states", "Saved states of prompts in memory now"),
    ("bytes", "prompt_states_bytes", "Bytes of the saved states in memory now"),
    ("disk_bytes", "prompt_states_disk_bytes", "Bytes of the saved states on the disk now"),
)


def state_metrics(figures: Mapping[str, StateFigures]) -> Iterator[Metric]:
    """The counts and sizes by model; nothing if no model has saved states."""
    if not figures:
        return
    for name, metric, text in _COUNTERS:
        counter = CounterMetricFamily(f"xinference_{metric}", text, labels=("model",))
        for uid, each in figures.items():
            counter.add_metric((uid,), getattr(each, name))
        yield counter
    for name, metric, text in _GAUGES:
        gauge = GaugeMetricFamily(f"xinference_{metric}", text, labels=("model",))
        for uid, each in figures.items():
            gauge.add_metric((uid,), getattr(each, name))
        yield gauge
