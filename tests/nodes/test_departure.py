"""A worker that ends with its engines: the supervisor is told first, nobody is waited for long, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from tests.deployments.doubles import turns
from xinference.nodes import departure
from xinference.nodes.agent import Agent
from xinference.nodes.departure import Departure
from xinference.process import engine_stop

MOVE_SECONDS = 3600.0


@dataclass
class Scripted:
    """An agent, its link and its machine, which write down what happens."""

    confirms: bool = True
    """It lets a worker leave that does not wait."""
    moves: bool = False
    """It starts replicas elsewhere first."""
    is_linked: bool = True
    left: list[str] = field(default_factory=list)
    """The keepers that do not end by themselves."""
    steps: list[str] = field(default_factory=list)
    leave_noted: asyncio.Event = field(default_factory=asyncio.Event)
    may_leave: asyncio.Event = field(default_factory=asyncio.Event)
    may_stop: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self, *, waits: bool) -> None:
        self.steps.append("waits" if waits else "told")
        if waits and self.moves:
            self.leave_noted.set()
        if self.confirms and not waits:
            self.may_leave.set()

    async def stop_engines(self) -> None:
        self.steps.append("stops")
        await self.may_stop.wait()
        self.steps.append("stopped")

    def end_keepers(self, run_dir: Path, seconds: float) -> list[str]:
        self.steps.append("killed at once" if not seconds else "scanned")
        return self.left


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Departure, Scripted]]:
    def make(**changes: object) -> tuple[Departure, Scripted]:
        scripted = Scripted(**changes)  # type: ignore[arg-type]  # the fields of a test
        monkeypatch.setattr(engine_stop, "end_keepers", scripted.end_keepers)
        ended = Departure(
            cast(Agent, scripted),
            lambda: scripted.is_linked,
            lambda: scripted.steps.append("link closed"),
            Path("run"),
            MOVE_SECONDS,
        )
        return ended, scripted

    return make


Make = Callable[..., tuple[Departure, Scripted]]


async def test_the_supervisor_confirms_before_an_engine_is_stopped(made: Make) -> None:
    ended, scripted = made()
    scripted.may_stop.set()
    await ended.begin()
    await ended.end_engines()
    assert scripted.steps == ["told", "stops", "stopped", "scanned"], "and it is told once"


async def test_a_supervisor_that_does_not_confirm_gets_no_chance_to_start_an_engine(
    made: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(departure, "LEAVE_SECONDS", 0.0)
    ended, scripted = made(confirms=False)
    scripted.may_stop.set()
    await ended.end_engines()
    assert scripted.steps == ["told", "link closed", "stops", "stopped", "scanned"]
    assert "has not confirmed that this worker ends" in caplog.text


async def test_a_worker_without_a_link_waits_for_no_answer(made: Make) -> None:
    ended, scripted = made(confirms=False, is_linked=False)
    async with asyncio.timeout(departure.LEAVE_SECONDS / 2):
        await ended.begin()
    assert scripted.steps == ["told", "link closed"]


async def test_a_second_signal_ends_the_wait_for_the_supervisor(made: Make) -> None:
    ended, scripted = made(confirms=False)
    beginning = asyncio.create_task(ended.begin())
    await turns()
    ended.hurry()
    async with asyncio.timeout(departure.LEAVE_SECONDS / 2):
        await beginning
    assert scripted.steps == ["told", "link closed"]


async def test_a_second_signal_kills_the_engines_that_have_not_stopped(
    made: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_stop, "KEEPER_SECONDS", 0.0)
    ended, scripted = made(left=["r1"])
    ending = asyncio.create_task(ended.end_engines())
    await turns()
    assert scripted.steps == ["told", "stops"]
    ended.hurry()
    await ending
    assert scripted.steps == ["told", "stops", "killed at once"] and "r1" in caplog.text


async def test_a_worker_stays_until_its_replicas_are_ready_elsewhere(made: Make) -> None:
    ended, scripted = made(moves=True)
    beginning = asyncio.create_task(ended.begin(moves=True))
    await turns()
    assert scripted.steps == ["waits"] and not beginning.done()
    scripted.may_leave.set()
    await beginning
    assert scripted.steps == ["waits"]


async def test_a_second_signal_ends_the_wait_for_the_moves_and_the_supervisor_is_told(made: Make) -> None:
    ended, scripted = made(moves=True)
    beginning = asyncio.create_task(ended.begin(moves=True))
    await turns()
    ended.hurry()
    await beginning
    assert scripted.steps == ["waits", "told"]


async def test_replicas_that_are_not_ready_elsewhere_in_time_are_not_waited_for(
    made: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended, scripted = made(moves=True)
    monkeypatch.setattr(ended, "_move_seconds", 0.01)
    await ended.begin(moves=True)
    assert scripted.steps == ["waits", "told"]
    assert "not all of its replicas are ready on other machines" in caplog.text


async def test_a_link_that_breaks_during_the_moves_ends_the_wait(made: Make) -> None:
    ended, scripted = made(moves=True, confirms=False)
    beginning = asyncio.create_task(ended.begin(moves=True))
    await turns()
    scripted.is_linked = False
    async with asyncio.timeout(departure.LEAVE_SECONDS):
        await beginning
    assert scripted.steps == ["waits", "told", "link closed"]


async def test_a_supervisor_that_moves_nothing_first_is_told_again(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departure, "LEAVE_SECONDS", 0.05)
    ended, scripted = made(moves=False)
    await ended.begin(moves=True)
    assert scripted.steps == ["waits", "told"]
