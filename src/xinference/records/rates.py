"""Rates over time: rings of points of 2 s, 30 s and 10 min, made from counts that only grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xinference.records.amounts import FIRST_TOKEN_BUCKETS, Amounts, quantile
from xinference.records.totals import Series

#: Seconds of a point -> the number of points that are kept: 15 minutes, 6 hours, 7 days.
RINGS = {2.0: 450, 30.0: 720, 600.0: 1008}
#: A point may come this much before its time, so that the sampler's delays do not leave out every second one.
EARLY_SECONDS = 0.5
_NO_COUNTS = (0,) * (len(FIRST_TOKEN_BUCKETS) + 1)


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of one model at one time; they only grow, except `in_flight` and `waiting`."""

    requests: int = 0
    prompt: int = 0
    output: int = 0
    """The tokens of all answers, with the events of the streams that have not ended."""
    first_tokens: tuple[int, ...] = _NO_COUNTS
    in_flight: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All counts at one time."""

    time: float
    """Seconds since the epoch."""
    models: Mapping[str, Counts]
    host: Mapping[str, float] = field(default_factory=dict)
    """Measured values of the machine, such as ``cpu``."""


@dataclass(frozen=True, slots=True)
class Point:
    """The rates between two snapshots."""

    time: float
    models: Mapping[str, Mapping[str, float | None]]
    """The series by model; the sums of all models are under the empty name."""
    host: Mapping[str, float]


def counts_by_model(totals: Mapping[Series, Amounts], running: Mapping[str, tuple[int, int, int]]) -> dict[str, Counts]:
    """The counts of each model.

    Args:
        running: by model, the requests that have not ended: their number, those that wait, their output until now.
    """
    amounts: dict[str, Amounts] = {}
    for series, each in totals.items():
        amounts.setdefault(series.model, Amounts()).merge(each)
    counts = {}
    for model in amounts.keys() | running.keys():
        ended = amounts.get(model, Amounts())
        in_flight, waiting, output = running.get(model, (0, 0, 0))
        first = tuple(ended.first_token.counts) if ended.first_token is not None else _NO_COUNTS
        counts[model] = Counts(ended.requests, ended.prompt, ended.output + output, first, in_flight, waiting)
    return counts


class Rates:
    """The rings of one server; used from one event loop, so it needs no lock."""

    def __init__(self, rings: Mapping[float, int] | None = None) -> None:
        kept = rings or RINGS
        self._rings: dict[float, deque[Point]] = {step: deque(maxlen=count) for step, count in kept.items()}
        self._last: dict[float, Snapshot] = {}
        self.samples = 0
        """The number of snapshots until now."""

    def add(self, snapshot: Snapshot) -> None:
        """Add a snapshot: each ring whose time has come gets the rates since its last one."""
        self.samples += 1
        for step, ring in self._rings.items():
            last = self._last.get(step)
            if last is None or snapshot.time < last.time:  # the first one, or the clock was set back
                self._last[step] = snapshot
            elif snapshot.time - last.time >= step - EARLY_SECONDS:
                ring.append(_point(last, snapshot))
                self._last[step] = snapshot

    def step_for(self, step: float | None, since: float | None, now: float) -> float:
        """The ring with points of at least `step` seconds that reaches back to `since`."""
        for each, ring in self._rings.items():
            if (step is None or each >= step) and (since is None or since >= now - each * (ring.maxlen or 0)):
                return each
        return max(self._rings)

    def newest(self, step: float) -> Point | None:
        """The newest point of one ring."""
        ring = self._rings[step]
        return ring[-1] if ring else None

    def points(self, step: float, since: float = 0.0) -> list[Point]:
        """The points of one ring after a time, oldest first."""
        return [point for point in self._rings[step] if point.time > since]


def _point(before: Snapshot, after: Snapshot) -> Point:
    seconds = after.time - before.time
    models = {
        model: _rates([before.models.get(model, Counts())], [counts], seconds)
        for model, counts in after.models.items()
        if counts.in_flight or counts.waiting or counts != before.models.get(model, Counts())
    }
    known = [before.models.get(model, Counts()) for model in after.models]
    models[""] = _rates(known, after.models.values(), seconds)
    return Point(after.time, models, after.host)


def _rates(before: Iterable[Counts], after: Iterable[Counts], seconds: float) -> dict[str, float | None]:
    pairs = list(zip(before, after, strict=True))
    # A model that is launched again, or an estimate that was too high, may lower a count.
    requests = sum(max(0, new.requests - old.requests) for old, new in pairs)
    prompt = sum(max(0, new.prompt - old.prompt) for old, new in pairs)
    output = sum(max(0, new.output - old.output) for old, new in pairs)
    firsts = [0] * len(_NO_COUNTS)
    for old, new in pairs:
        firsts = [n + max(0, b - a) for n, a, b in zip(firsts, old.first_tokens, new.first_tokens, strict=True)]
    return {
        "in_flight": sum(new.in_flight for _, new in pairs),
        "waiting": sum(new.waiting for _, new in pairs),
        "requests_per_second": requests / seconds,
        "prompt_tokens_per_second": prompt / seconds,
        "output_tokens_per_second": output / seconds,
        "first_token_p50": quantile(FIRST_TOKEN_BUCKETS, firsts, 0.5),
        "first_token_p95": quantile(FIRST_TOKEN_BUCKETS, firsts, 0.95),
    }


#: The series of a model that had no request.
_IDLE: Mapping[str, float | None] = {
    "in_flight": 0,
    "waiting": 0,
    "requests_per_second": 0.0,
    "prompt_tokens_per_second": 0.0,
    "output_tokens_per_second": 0.0,
    "first_token_p50": None,
    "first_token_p95": None,
}


def columns(points: Iterable[Point], models: Iterable[str]) -> dict[str, Any]:
    """Points as columns: ``t``, the series of all models, those of some models, and those of the machine."""
    kept = list(points)
    hosts = sorted({name for point in kept for name in point.host})

    def series(model: str) -> dict[str, list[float | None]]:
        return {name: [point.models.get(model, _IDLE)[name] for point in kept] for name in _IDLE}

    return {
        "t": [point.time for point in kept],
        "all": series(""),
        "models": {model: series(model) for model in models},
        "host": {name: [point.host.get(name) for point in kept] for name in hosts},
    }
