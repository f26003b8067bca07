"""Searches the fastest options of an engine: tries one change after the other, and keeps what makes nothing slower."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Options = Mapping[str, Any]
Ratios = Mapping[str, float]
"""Figure -> the speed with some options in relation to that with others."""

#: A change is kept if the mean of all figures gains this factor,
GAIN = 1.03
#: and no figure loses more than what measurements of the same differ by.
LOSS = 0.98


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    options: dict[str, Any] = field(default_factory=dict)
    """Empty: nothing is faster than the defaults."""
    ratios: dict[str, float] = field(default_factory=dict)
    """The last comparison with the defaults."""


def search(
    groups: Sequence[Sequence[Options]],
    compare: Callable[[Options, Options], Ratios | None],
    has_time: Callable[[], bool],
    verify: Callable[[Options], Ratios | None],
) -> Found:
    """Find the fastest options.

    Args:
        groups: of each group, at most one change is kept.
        compare: the ratios of the second options to the first ones; None: the second can't be used.
        has_time: asked before each comparison.
        verify: the ratios of the best options to the defaults, measured once more and longer.
    """
    best: dict[str, Any] = {}
    for changes in groups:
        gains: list[tuple[float, Options]] = []
        for change in changes:
            if not has_time():
                break
            ratios = compare(best, {**best, **change})
            if ratios is not None and is_faster(ratios):
                gains.append((mean(ratios), change))
        if gains:
            best |= max(gains, key=lambda each: each[0])[1]
    if not best:
        return Found()
    ratios = verify(best)
    return Found(best, dict(ratios)) if ratios is not None and is_faster(ratios) else Found(ratios=dict(ratios or {}))


def is_faster(ratios: Ratios) -> bool:
    return min(ratios.values()) >= LOSS and mean(ratios) >= GAIN


def mean(ratios: Ratios) -> float:
    """The geometric mean."""
    return math.exp(sum(map(math.log, ratios.values())) / len(ratios))
