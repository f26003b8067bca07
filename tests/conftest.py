"""What holds for every test."""

from __future__ import annotations

import functools

import httpcore2
import pytest

# Each client of httpx2, and each call of its functions, makes a TLS context, which takes 25 ms of CPU time. Tests that
# poll a server on loopback would use a core for that, so all share one context.
httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)

pytest_plugins = ["pytester", "tests.support.unit_guard", "tests.support.examples"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests with the mark `measured` out, unless a mark expression names it."""
    if "measured" in config.option.markexpr:
        return
    measured = [item for item in items if item.get_closest_marker("measured")]
    config.hook.pytest_deselected(items=measured)
    items[:] = [item for item in items if item not in set(measured)]
