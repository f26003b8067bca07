"""Whether an engine is faster beyond noise: rounds whose figures are known."""

from __future__ import annotations

import random

import pytest

from xinference.local_commands.speed_comparison import Comparison


def rounds(*means: float, **figures: float) -> Comparison:
    return Comparison([{"prefill": mean, "streams": mean, **figures} for mean in means])


def test_a_gain_in_each_round_is_faster() -> None:
    assert rounds(1.05, 1.04, 1.2).is_faster


def test_a_gain_that_comes_and_goes_is_noise() -> None:
    """The median gains 5 %, as two equal engines do by chance on a busy machine."""
    assert not rounds(1.05, 1.3, 0.9).is_faster
    assert not rounds(1.3, 0.8, 1.05, 1.2, 0.85, 1.1, 1.04).is_faster


def test_one_of_seven_rounds_may_be_lower() -> None:
    assert rounds(1.05, 1.04, 1.2, 0.9, 1.1, 1.06, 1.05).is_faster


@pytest.mark.parametrize(("edits", "faster"), [(1.0, True), (0.99, False), (0.97, False)])
def test_a_figure_that_is_lower_in_every_round_is_slower(edits: float, faster: bool) -> None:
    assert rounds(*[1.1] * 7, edits=edits).is_faster is faster


def test_two_equal_engines_are_seldom_faster_than_each_other() -> None:
    """Each figure differs by a tenth from round to round, as on a machine with other work."""
    noise = random.Random(1)
    names = ("prefill", "1 stream", "4 streams", "8 streams", "edits")
    found = [Comparison([{name: noise.lognormvariate(0, 0.1) for name in names} for _ in range(7)]) for _ in range(500)]
    assert sum(each.is_faster for each in found) <= 20
