"""The folder of saved states: states of other weights or options are deleted before a replica starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engines.plans import launch_of, sized
from xinference.config import Settings
from xinference.deployments.states_folder import PIECE_BYTES, states_folder
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.files import state_folders
from xinference.launch.plan import SizedPlan

SIZE = 100 * PIECE_BYTES


@pytest.fixture(autouse=True)
def in_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(state_folders, "IN_MEMORY", tmp_path)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"a" * SIZE)
    os.utime(file, ns=(1, 1))
    return file


async def keeps_state(plan: SizedPlan, home: Path, change: SizedPlan | None = None) -> bool:
    """Whether a state that was saved with the plan is still there for the next start."""
    settings = Settings(home=home, shared_beginnings=True)
    folder = await states_folder(LlamaCpp(), plan, settings)
    assert folder is not None
    (folder / "a.state").write_bytes(b"state")
    (state_folders.disk_folder(home, plan.uid) / "a.state").write_bytes(b"state")
    return await states_folder(LlamaCpp(), change or plan, settings) == folder and (folder / "a.state").exists()


def plan_of(weights: Path, **options: object) -> SizedPlan:
    return sized(launch_of(engine="llama.cpp", options=options), path=weights, state_bytes=1)


async def test_the_same_weights_and_options_keep_their_states(weights: Path, tmp_path: Path) -> None:
    assert await keeps_state(plan_of(weights), tmp_path / "home")


async def test_other_weights_of_the_same_size_and_time_keep_none(weights: Path, tmp_path: Path) -> None:
    plan, home = plan_of(weights), tmp_path / "home"
    assert await keeps_state(plan, home)
    weights.write_bytes(b"b" * SIZE)
    os.utime(weights, ns=(1, 1))
    await states_folder(LlamaCpp(), plan, Settings(home=home, shared_beginnings=True))
    assert not list(home.rglob("*.state")) and not list(tmp_path.rglob("*.state"))


async def test_other_options_keep_none(weights: Path, tmp_path: Path) -> None:
    other = plan_of(weights, rope_freq_scale=0.5)
    assert not await keeps_state(plan_of(weights), tmp_path / "home", other)


async def test_weights_that_are_gone_share_nothing(weights: Path, tmp_path: Path) -> None:
    weights.unlink()
    assert await states_folder(LlamaCpp(), plan_of(weights), Settings(home=tmp_path, shared_beginnings=True)) is None


async def test_weights_on_a_disk_that_hangs_share_nothing_and_hold_up_no_other_task(tmp_path: Path) -> None:
    hanging = tmp_path / "m.gguf"
    os.mkfifo(hanging)  # its reader waits until somebody writes
    settings = Settings(home=tmp_path / "home", shared_beginnings=True)
    try:
        assert await states_folder(LlamaCpp(), plan_of(hanging), settings, seconds=0.01) is None
    finally:
        os.close(os.open(hanging, os.O_RDWR | os.O_NONBLOCK))  # ends the thread that reads
