"""What is flat and what grows is told apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields

import pytest

from tests.soak.samples import Sample, Tolerance, growing, growth, second_half

NAMES = [each.name for each in fields(Sample)[1:]]


def samples(value: Callable[[float], float]) -> list[Sample]:
    """Samples of 30 minutes, one each 5 s, whose measures all have the same value."""
    return [Sample(second, *[value(second)] * len(NAMES)) for second in map(float, range(0, 1800, 5))]


@pytest.mark.parametrize(
    "value",
    [
        lambda second: 100.0,
        lambda second: 100.0 + 20 * math.sin(second),
        lambda second: 100.0 + (300 if second % 100 == 0 else 0),
        lambda second: min(100.0, second),
        lambda second: 100.0 - second / 100,
    ],
    ids=["constant", "up and down", "single peaks", "full after a while", "falling"],
)
def test_what_is_flat_in_the_second_half_does_not_grow(value: Callable[[float], float]) -> None:
    assert growing(samples(value), dict.fromkeys(NAMES, Tolerance(2))) == []


def test_a_slow_growth_is_found_under_noise() -> None:
    leak = samples(lambda second: 100 + second / 100 + 20 * math.sin(second))
    assert growth(second_half(leak), "server_kib") == pytest.approx(9, rel=0.3)
    assert [line.split(" ")[0] for line in growing(leak, {"server_kib": Tolerance(5)})] == ["server_kib"]
    assert growing(leak, {"server_kib": Tolerance(5, share=0.2)}) == []
