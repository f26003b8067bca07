"""What holds for every test."""

from __future__ import annotations

import functools
from pathlib import Path

import httpcore2
import pytest

# Each client of httpx2, and each call of its functions, makes a TLS context, which takes 25 ms of CPU time. Tests that
# poll a server on loopback would use a core for that, so all share one context.
httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)

pytest_plugins = [
    "pytester",
    "tests.support.unit_guard",
    "tests.support.examples",
    "tests.support.garbage",
    "tests.support.unsynced_stores",
    "tests.support.live_schedule",
]


#: Folders whose tests all start real processes.
LIVE_FOLDERS = {Path(__file__).parent / name for name in ("live", "third_party_clients")}

#: Marks of tests that run only where they are asked for: they need an idle machine, or a browser.
ASKED_FOR = ("measured", "browser")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import live tests that are left out: the libraries of clients take each worker seconds."""
    is_left_out = "not live" in config.option.markexpr.split(" and ")
    return True if is_left_out and collection_path in LIVE_FOLDERS else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of `LIVE_FOLDERS`, and leave out those of `ASKED_FOR` that no mark expression names."""
    is_live = functools.cache(lambda path: bool(LIVE_FOLDERS & set(path.parents)))
    for item in items:
        if is_live(item.path):
            item.add_marker(pytest.mark.live)
    unasked = [mark for mark in ASKED_FOR if mark not in config.option.markexpr]
    left_out = {item for item in items if any(item.get_closest_marker(mark) for mark in unasked)}
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]
