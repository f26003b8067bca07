"""What holds for every test."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester", "tests.support.unit_guard", "tests.support.examples"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests with the mark `measured` out, unless a mark expression names it."""
    if "measured" in config.option.markexpr:
        return
    measured = [item for item in items if item.get_closest_marker("measured")]
    config.hook.pytest_deselected(items=measured)
    items[:] = [item for item in items if item not in set(measured)]
