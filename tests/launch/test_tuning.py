"""The options that `xinference tune` has measured, in the draft of a launch and in their file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from tests.engines.plans import launch_of
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.tuning import Tuning, find_tuning, is_off, machine_of, with_entry, with_tuning, without_own
from xinference.launch.tuning_file import FILE, read_tunings, write_tunings

HOST = Host(2, 1, 1, cpu_flags=frozenset({"avx2"}), cpu_name="A processor")
DRAFT = dataclasses.replace(launch_of(engine="llama.cpp").draft, options={"n_ctx": 512})
TUNING = Tuning(
    DRAFT.version.version_id, "llama.cpp", "1", machine_of(HOST), {"n_ubatch": 256, "n_ctx": 99}, {"prefill": 1.2}
)


def test_a_launch_gets_the_measured_options_that_it_does_not_name() -> None:
    draft = with_tuning(DRAFT, TUNING)
    assert draft.options == {"n_ctx": 512, "n_ubatch": 256}
    (reason,) = set(draft.reasons) - set(DRAFT.reasons)
    assert "n_ubatch 256" in reason
    assert "prefill 1.20" in reason
    assert "--no-tune" in reason
    assert "n_ctx 99" not in reason


def test_nothing_measured_changes_nothing() -> None:
    assert with_tuning(DRAFT, None) is DRAFT
    assert with_tuning(DRAFT, msgspec.structs.replace(TUNING, options={})) is DRAFT
    assert with_tuning(DRAFT, msgspec.structs.replace(TUNING, options={"n_ctx": 1})) is DRAFT


@pytest.mark.parametrize(
    "other",
    [
        {"version_id": "another"},
        {"engine": "vLLM"},
        {"release": "2"},
        {"machine": machine_of(dataclasses.replace(HOST, physical_cores=4))},
        {"machine": machine_of(dataclasses.replace(HOST, cpu_flags=frozenset({"avx2", "avx512f"})))},
    ],
)
def test_it_is_for_the_same_version_engine_release_and_machine(other: dict[str, str]) -> None:
    assert find_tuning([TUNING], DRAFT, "1", HOST) is TUNING
    changed = msgspec.structs.replace(TUNING, **other)
    assert find_tuning([changed], DRAFT, "1", HOST) is None
    assert with_entry([changed], TUNING) == [changed, TUNING]


def test_a_new_measurement_replaces_the_earlier_one(tmp_path: Path) -> None:
    newer = msgspec.structs.replace(TUNING, options={})
    write_tunings(tmp_path / "home", with_entry([TUNING], newer))
    assert read_tunings(tmp_path / "home") == [newer]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"engine": 1}]'])
def test_a_file_that_is_damaged_counts_as_none(tmp_path: Path, content: str) -> None:
    assert read_tunings(tmp_path) == []
    (tmp_path / FILE).write_text(content)
    assert read_tunings(tmp_path) == []


def test_the_option_of_a_launch_is_no_option_of_the_engine() -> None:
    assert is_off({"tune": False})
    assert not is_off({"tune": True})
    assert not is_off({})
    assert without_own({"tune": False, "n_ctx": 1}) == {"n_ctx": 1}
    with pytest.raises(Problem, match="must be true or false"):
        is_off({"tune": "no"})
