"""Live tests that run at once: those of different files, but for those whose models compute."""

from __future__ import annotations

from tests.support.live_schedule import Units, missing_files, unit_of


def test_each_file_that_is_named_exists() -> None:
    assert missing_files() == []


def test_a_file_is_a_unit_and_those_that_compute_are_one() -> None:
    nodeids = ["tests/live/test_context.py::test_a", "tests/live/test_lora.py::test_b[x::y]", "tests/a.py::test_c[d]"]
    assert [unit_of(nodeid) for nodeid in nodeids] == ["compute", "compute", "tests/a.py"]


def test_what_takes_longest_begins_first_and_then_what_has_most_tests() -> None:
    units = Units({unit: dict.fromkeys("abc"[:tests], False) for unit, tests in ORDER[::-1]})
    assert [units.popitem(last=False)[0] for _ in ORDER] == [unit for unit, _ in ORDER]
    assert not units


ORDER = [
    ("compute", 1),
    ("tests/live/test_openapi_fuzz.py", 2),
    ("tests/soak/test_soak.py", 1),
    ("tests/live/test_many.py", 3),
    ("tests/live/test_few.py", 2),
]
