"""Searches the fastest options of an engine: tries one change after the other, and keeps those without a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xinference.local_commands.speed_comparison import Comparison

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    options: dict[str, Any] = field(default_factory=dict)
    """Empty: nothing is faster than the defaults."""
    ratios: dict[str, float] = field(default_factory=dict)
    """The last comparison with the defaults."""
    is_certain: bool = True
    """False: the options were faster in the last comparison, but it had too few rounds to keep them."""


def search(
    groups: Sequence[Sequence[Options]],
    compare: Callable[[Options, Options], Comparison | None],
    has_time: Callable[[], bool],
    verify: Callable[[Options], Comparison | None],
) -> Found:
    """Find the fastest options.

    Args:
        groups: of each group, at most one change is kept.
        compare: the speeds with the second options in relation to the first ones; None: the second can't be used.
        has_time: asked before each comparison.
        verify: the speeds with the best options in relation to the defaults, measured once more and longer.
    """
    best: dict[str, Any] = {}
    for changes in groups:
        gains: list[tuple[float, Options]] = []
        for change in changes:
            if not has_time():
                break
            compared = compare(best, {**best, **change})
            if compared is not None and compared.is_faster:
                gains.append((compared.mean, change))
        if gains:
            best |= max(gains, key=lambda each: each[0])[1]
    if not best:
        return Found()
    last = verify(best)
    if last is None:
        return Found()
    if not last.is_faster:
        return Found(ratios=last.medians)
    return Found(best if last.is_certain else {}, last.medians, last.is_certain)
