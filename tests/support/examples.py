"""How many examples a property is tested with: all in `make test`, a part of them in `make test-unit`."""

from __future__ import annotations

import os

import hypothesis

#: `make test-unit` divides the number of examples by this.
_DIVISOR = int(os.environ.get("EXAMPLES_DIVISOR", "1"))


def examples(number: int) -> int:
    """The examples that a property gets in this run, of `number` in a full one."""
    return max(1, number // _DIVISOR)


def pytest_configure() -> None:
    hypothesis.settings.register_profile("this run", max_examples=examples(100))
    hypothesis.settings.load_profile("this run")
