"""Live tests that run at once: those of different files, but for those whose models compute."""

from __future__ import annotations

from tests.support.live_schedule import missing_files, unit_of


def test_each_file_that_computes_exists() -> None:
    assert missing_files() == []


def test_a_file_is_a_unit_and_those_that_compute_are_one() -> None:
    nodeids = ["tests/live/test_context.py::test_a", "tests/live/test_lora.py::test_b[x::y]", "tests/a.py::test_c[d]"]
    assert [unit_of(nodeid) for nodeid in nodeids] == ["compute", "compute", "tests/a.py"]
