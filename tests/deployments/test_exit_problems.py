"""Which ends of engines are crashes, for which a request may be suspected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from xinference.deployments.exit_problems import crash_of
from xinference.error_codes import Code
from xinference.gateway.stream import END_TEXTS, end_text
from xinference.process.command import Exit, Fault
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState
from xinference.routing.table import Crash

RUNNING = ReplicaSnapshot("r1", ReplicaState.READY, 1, "http://127.0.0.1:1", "", {}, Path("r1.log"))
EXIT = Exit(None, "SIGKILL", (), 1.0)


@pytest.mark.parametrize("fault", [Fault.NODE_LOST, Fault.NODE_LEFT])
def test_the_end_of_a_machine_is_no_crash_of_its_engines(fault: Fault) -> None:
    assert crash_of(replace(RUNNING, exit=replace(EXIT, fault=fault))) is None
    assert crash_of(replace(RUNNING, fault=fault)) is None


@pytest.mark.parametrize("fault", [None, *Fault])
def test_every_crash_has_a_text_for_the_client(fault: Fault | None) -> None:
    crashes = [crash_of(replace(RUNNING, exit=replace(EXIT, fault=fault))), crash_of(replace(RUNNING, fault=fault))]
    assert all(crash is None or crash.code in END_TEXTS for crash in crashes)


def test_an_exit_without_a_request_is_a_crash_and_a_requested_one_is_none() -> None:
    assert crash_of(replace(RUNNING, exit=EXIT)) == Crash("r1", Code.ENGINE_DIED)
    assert crash_of(replace(RUNNING, exit=replace(EXIT, requested=True))) is None
    assert crash_of(RUNNING) is None


def test_a_code_of_another_release_ends_a_stream_with_a_text() -> None:
    assert end_text("of_the_next_release") == "died"
