"""The end of a program that stops its engines: what it says, and which signals it takes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deployments.doubles import turns
from xinference.process import engine_stop
from xinference.process.engine_stop import finish_stop, on_signals


@pytest.fixture
def hangup() -> Iterator[None]:
    """What this process does at SIGHUP is as before after the test."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


async def test_a_wait_for_engines_is_reported_with_the_way_to_end_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_stop, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(engine_stop, "end_keepers", lambda run_dir, seconds: [])
    caplog.set_level("INFO")
    stopped = asyncio.Event()
    ending = asyncio.create_task(finish_stop(stopped.wait(), asyncio.Event(), Path("run")))
    while not caplog.messages:
        await turns()
    assert caplog.messages == ["waiting for the engines to end; Ctrl+C kills them"]
    stopped.set()
    await ending


@pytest.mark.parametrize(("before", "acts"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
async def test_a_hangup_is_taken_unless_it_is_ignored(
    hangup: None, before: signal.Handlers, acts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[int, Callable[[], object]] = {}
    monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", taken.__setitem__, raising=False)
    signal.signal(signal.SIGHUP, before)
    on_signals(lambda: None)
    assert (signal.SIGHUP in taken) is acts and signal.SIGINT in taken
