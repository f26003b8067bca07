"""The search of the fastest options: an engine whose speeds are known, and no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xinference.local_commands.speed_comparison import Comparison
from xinference.local_commands.tuning_search import Found, Options, search

GROUPS: list[list[Options]] = [[{"threads": 1}, {"threads": 4}], [{"batch": 256}, {"batch": 512}], [{"cache": "q8"}]]


def run(speeds: Callable[[Options], dict[str, float] | None], **changes: Any) -> Found:
    def compare(first: Options, second: Options) -> Comparison | None:
        one, other = speeds(first), speeds(second)
        assert one is not None
        return None if other is None else Comparison([{name: other[name] / one[name] for name in one}] * 5)

    has_time = changes.get("has_time", lambda: True)
    return search(GROUPS, compare, has_time, changes.get("verify", lambda best: compare({}, best)))


def test_the_best_change_of_each_group_is_kept() -> None:
    gains = {1: 0.5, 4: 1.2, 256: 1.1, 512: 1.3, "q8": 1.0}

    def speeds(options: Options) -> dict[str, float]:
        speed = 1.0
        for value in options.values():
            speed *= gains[value]
        return {"prefill": speed, "streams": speed}

    found = run(speeds)
    assert found.options == {"threads": 4, "batch": 512}
    assert abs(found.ratios["prefill"] - 1.56) < 0.001


def test_a_change_that_makes_one_figure_slower_is_not_kept() -> None:
    def speeds(options: Options) -> dict[str, float]:
        return {"prefill": 3.0 if options else 1.0, "streams": 0.95 if options else 1.0}

    assert run(speeds) == Found()


def test_what_can_not_be_used_is_left_out() -> None:
    assert run(lambda options: None if options else {"prefill": 1.0}) == Found()


def test_options_that_are_not_faster_in_the_last_comparison_are_not_kept() -> None:
    def speeds(options: Options) -> dict[str, float]:
        return {"prefill": 2.0 if options else 1.0}

    found = run(speeds, verify=lambda best: Comparison([{"prefill": 1.0}]))
    assert (found.options, found.ratios) == ({}, {"prefill": 1.0})


def test_options_whose_last_comparison_had_no_time_are_not_kept() -> None:
    """One round of two equal engines may gain a tenth."""

    def speeds(options: Options) -> dict[str, float]:
        return {"prefill": 2.0 if options else 1.0}

    found = run(speeds, verify=lambda best: Comparison([{"prefill": 1.1}]))
    assert found == Found({}, {"prefill": 1.1}, is_certain=False)


def test_nothing_more_is_tried_when_the_time_is_over() -> None:
    tried: list[Options] = []

    def speeds(options: Options) -> dict[str, float]:
        tried.append(options)
        return {"prefill": 1.0}

    assert run(speeds, has_time=lambda: len(tried) < 2) == Found()
    assert len(tried) == 2
