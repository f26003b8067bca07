"""The garbage collector while modules are loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from xinference.gc_pause import without_collections


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_inside_and_what_is_loaded_is_not_visited_afterwards() -> None:
    before = gc.get_freeze_count()
    with without_collections():
        assert not gc.isenabled()
        loaded = [[number] for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(loaded)


def test_it_is_enabled_again_after_a_failure() -> None:
    with pytest.raises(ImportError), without_collections():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with without_collections():
        pass
    assert not gc.isenabled()
