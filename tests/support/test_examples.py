from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import examples

ROOT = Path(__file__).parents[2]


def test_make_test_unit_sets_the_variable_that_is_read_and_make_test_does_not() -> None:
    recipes = dict(re.findall(r"^(test|test-unit):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert f"{examples.VARIABLE}=10 " in recipes["test-unit"]
    assert examples.VARIABLE not in recipes["test"]


def test_the_divisor_divides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "DIVISOR", 10)
    assert (examples.examples(100), examples.examples(5)) == (10, 1)
    assert [*examples.positions(25)] == [0, 10, 20]


def test_the_gate_leaves_out_only_what_another_target_runs() -> None:
    """Each test that `make test-unit` leaves out runs in one of the two runs of `make test`, or in `make test-long`."""
    recipes = dict(re.findall(r"^(test|test-long):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    marks = {name: re.findall(r"-m (\S+|\"[^\"]*\")$", recipe, re.MULTILINE) for name, recipe in recipes.items()}
    assert marks == {"test": ['"not live"', '"live and not long"'], "test-long": ["long"]}
