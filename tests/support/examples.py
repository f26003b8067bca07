"""How many examples a property is tested with: all in `make test`, one of ten in `make test-unit`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

#: `make test-unit` sets it to the number by which the examples of a property are divided.
VARIABLE = "EXAMPLES_DIVISOR"
DIVISOR = int(os.environ.get(VARIABLE, "1"))


def examples(number: int) -> int:
    """The examples that a property gets in this run, of `number` in a full one."""
    return max(1, number // DIVISOR)


def positions(number: int) -> range:
    """The positions below `number` that this run tries: all of them in a full one."""
    return range(0, number, DIVISOR)


def pytest_configure() -> None:
    """Make this run's number the default. An example has no deadline: no test asserts a speed."""
    settings.register_profile(
        "this run", max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("this run")
