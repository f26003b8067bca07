"""The ceiling of an engine's memory and the watch on its progress, from plan and settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.doubles import sized_plan
from tests.support.cases import in_one_test
from xinference.config import Settings
from xinference.deployments.exit_problems import exit_problem, start_problem
from xinference.deployments.replica_command import engine_command
from xinference.engines.llama_cpp.engine import HTTP_REQUESTS, LlamaCpp
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.nodes.engine_guard import GPU_HOST_BYTES, ceilings, guard_of, host_bytes, machine_bytes
from xinference.process.command import EngineCommand, Exit, Fault, ProgressProbe
from xinference.process.engine_watch import Guard
from xinference.process.snapshot import exit_from
from xinference.routing.interfaces import NoLoad
from xinference.units import GIB, MIB

MARGIN = 2 * GIB
MACHINE = 64 * GIB


@in_one_test("planned", [0, MIB, GIB, 16 * GIB, 63 * GIB, 100 * GIB])
@in_one_test("margin", [1, MARGIN, 100 * GIB])
def test_a_ceiling_is_never_below_the_plan_and_lower_once_the_engine_is_ready(planned: int, margin: int) -> None:
    starting, ready = ceilings(planned, margin, MACHINE)
    assert planned <= ready <= starting


def test_a_ceiling_is_five_quarters_of_the_plan_and_the_margin_within_the_machine() -> None:
    assert ceilings(4 * GIB, MARGIN, MACHINE) == (14 * GIB, 7 * GIB)
    assert ceilings(56 * GIB, MARGIN, MACHINE) == (int(MACHINE * 0.95), int(MACHINE * 0.95))
    assert ceilings(63 * GIB, MARGIN, MACHINE)[1] == 63 * GIB + MARGIN // 4
    assert ceilings(None, MARGIN, MACHINE)[1] == int(MACHINE * 0.95), "its options set no limit"
    assert ceilings(4 * GIB, 0, MACHINE) == (0, 0), "switched off"
    assert machine_bytes() > GIB


def test_memory_of_devices_needs_no_host_memory_but_its_processes_do() -> None:
    plan = sized_plan("one")
    on_gpu = replace(plan, launch=replace(plan.launch, draft=replace(plan.launch.draft, use_gpu=True)))
    command = EngineCommand(("engine",), extra_bytes=GIB)
    assert host_bytes(plan, command) == plan.sizing.total_bytes + GIB
    assert host_bytes(on_gpu, command) == plan.sizing.total_bytes + GIB + GPU_HOST_BYTES
    assert host_bytes(plan, EngineCommand(("engine",), extra_bytes=None)) is None


@pytest.mark.parametrize(("options", "extra"), [({}, 25 * MIB), ({"cache_ram_mib": 8192}, 8 * GIB)])
def test_the_prompts_that_llama_cpp_keeps_count(options: dict[str, Any], extra: int) -> None:
    plan = sized_plan("one")
    plan = replace(plan, launch=replace(plan.launch, options=options))
    command = engine_command(LlamaCpp(), plan, 0, Path("python"))
    assert command.extra_bytes == extra + plan.sizing.kv_cache_bytes
    unlimited = replace(plan, launch=replace(plan.launch, options={"cache_ram_mib": -1}))
    assert engine_command(LlamaCpp(), unlimited, 0, Path("python")).extra_bytes is None


def test_a_later_server_reads_the_limits_from_the_context() -> None:
    command = engine_command(LlamaCpp(), sized_plan("one"), 0, Path("python"))
    context = json.loads(json.dumps(command.context))
    guard = guard_of(context, Settings(engine_memory_margin=MARGIN), NoLoad())
    assert guard.progress == ProgressProbe("/slots", None, one_thread=True, max_in_flight=HTTP_REQUESTS)
    assert guard.traffic is not None and MARGIN < guard.ceiling <= guard.starting_ceiling
    assert guard_of({"uid": "one"}, Settings(), NoLoad()) == Guard(), "an earlier release has started it"


def message(**changes: Any) -> dict[str, Any]:
    """A keeper's message of an exit by SIGKILL."""
    return {"code": None, "signal": "SIGKILL", "log_tail": ["last"], "ran_seconds": 9.0, "asked_for": False} | changes


OOM_KILLED = message(memory_excess=None, memory_ceiling=0, oom_killed=True)


@pytest.mark.parametrize(
    ("exit", "code", "words"),
    [
        (exit_from(message()), "engine_died", "was killed by SIGKILL"),
        (
            exit_from(message(memory_excess=3 * GIB, memory_ceiling=2 * GIB, oom_killed=False)),
            "engine_out_of_memory",
            "used 3,072 MiB of memory, more than its ceiling of 2,048 MiB",
        ),
        (
            exit_from(message(memory_excess=None, memory_ceiling=0, oom_killed=True)),
            "engine_died",
            "memory was exhausted",
        ),
        (
            Exit(None, "SIGKILL", (), 1.0, fault=Fault.HUNG, detail="answered no probe"),
            "engine_hung",
            "answered no probe",
        ),
    ],
)
def test_the_reason_of_an_end_is_told(exit: Exit, code: str, words: str) -> None:
    problem = exit_problem("one", LlamaCpp(), exit)
    assert (problem.code, problem.status) == (code, 502) and words in str(problem)


def test_the_reason_of_an_end_before_the_engine_is_ready_is_told_too() -> None:
    died = Problem(Code.ENGINE_DIED, "The engine was killed by SIGKILL before it was ready.", stage="health")
    killed = start_problem(died, exit_from(OOM_KILLED))
    assert killed.code == "engine_died" and killed.hint is not None and "memory was exhausted" in killed.hint
    above = start_problem(died, exit_from(message(memory_excess=2, memory_ceiling=1, oom_killed=False)))
    assert (above.code, above.stage) == ("engine_out_of_memory", "health")
    assert start_problem(died, exit_from(message())) == died
