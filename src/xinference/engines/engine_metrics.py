"""How an engine reports its own metrics, and the common figures that are read from them.

The gateway's processes load this with the dialects, so it imports nothing of an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

#: Name of a metric -> the values of all its series.
Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What all engines report of themselves. None: this engine does not report it."""

    running: float | None = None
    """Requests that are computed now."""
    waiting: float | None = None
    """Requests in the engine's own queue."""
    kv_cache_ratio: float | None = None
    """The share of the KV cache that running requests use, from 0 to 1."""
    prefix_queries: float | None = None
    """Tokens of prompts that were looked up in the prefix cache."""
    prefix_hits: float | None = None
    """Those of them that were found."""
    preemptions: float | None = None
    """Requests whose computation was interrupted, because the KV cache was full."""
    prompt_tokens: float | None = None
    """Tokens of prompts that were computed or found in the cache, since the engine's start."""
    output_tokens: float | None = None
    """Tokens that were generated."""
    draft_tokens: float | None = None
    """Tokens that were computed as drafts by speculative decoding."""
    accepted_tokens: float | None = None
    """Those of them that became tokens of an answer."""


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Where an engine reports its metrics, and which of them the common figures are. Empty names: not reported.

    An engine of several processes has one series for each of them: counts are summed, and shares are averaged.
    """

    path: str = ""
    """The path of the metrics in Prometheus' text format; empty: the engine has none."""
    running: str = ""
    waiting: str = ""
    divided_by: str = ""
    """A label by which `running` and `waiting` are divided, beside series with their sums, where the label is empty."""
    kv_cache_ratio: str = ""
    prefix_queries: tuple[str, ...] = ()
    """The counters whose sum it is."""
    prefix_hits: str = ""
    preemptions: str = ""
    prompt_tokens: tuple[str, ...] = ()
    """The counters whose sum it is."""
    output_tokens: str = ""
    draft_tokens: str = ""
    accepted_tokens: str = ""
    cache_path: str = ""
    """A further path that reports the use of the KV cache; empty: the metrics do."""
    read_cache: Callable[[bytes], float | None] | None = None
    """Reads `kv_cache_ratio` from the answer of `cache_path`; None: the answer has another form."""

    def figures(self, samples: Samples, cache: bytes | None = None) -> EngineFigures:
        """The common figures; `cache` is the answer of `cache_path`, if there is one."""
        ratio = self.read_cache(cache) if self.read_cache is not None and cache is not None else None
        return EngineFigures(
            running=_sum(samples, self.running),
            waiting=_sum(samples, self.waiting),
            kv_cache_ratio=_mean(samples, self.kv_cache_ratio) if ratio is None else ratio,
            prefix_queries=_sum_of_all(samples, self.prefix_queries),
            prefix_hits=_sum(samples, self.prefix_hits),
            preemptions=_sum(samples, self.preemptions),
            prompt_tokens=_sum_of_all(samples, self.prompt_tokens),
            output_tokens=_sum(samples, self.output_tokens),
            draft_tokens=_sum(samples, self.draft_tokens),
            accepted_tokens=_sum(samples, self.accepted_tokens),
        )


#: An engine without metrics.
NO_METRICS = EngineMetrics()


def _sum(samples: Samples, name: str) -> float | None:
    values = samples.get(name)
    return sum(values) if values else None


def _sum_of_all(samples: Samples, names: Sequence[str]) -> float | None:
    """The sum of several counters; None: one of them is not reported."""
    values = [_sum(samples, name) for name in names]
    return sum(filter(None, values)) if values and None not in values else None


def _mean(samples: Samples, name: str) -> float | None:
    values = samples.get(name)
    return sum(values) / len(values) if values else None
