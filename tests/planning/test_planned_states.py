"""The saved states of prompts are a part of the planned memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.engines.plans import GIB, launch_of
from tests.planning.test_sizing import host
from xinference.engines.registry import all_engines
from xinference.hardware.devices import Host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import SizedPlan
from xinference.launch.plan_entry import plan_entry
from xinference.launch.request import LaunchRequest
from xinference.planning.eviction import HOST
from xinference.planning.occupancy import Occupancy, available, footprint
from xinference.planning.sizing import size_launch
from xinference.units import MIB

SHAPE = ModelShape(
    GIB, kv_bytes_per_token=64 << 10, trained_context=8192, hidden=2048, vocab_size=32_000, heads=16, layers=24
)
CPU = Host(16, 64 * GIB, 64 * GIB, cpu_flags=frozenset({"avx2"}))


def planned(
    machine: Host = CPU, *, saves: bool = True, use_gpu: bool = False, replica: int = 1, **options: Any
) -> SizedPlan:
    request = LaunchRequest(model_name="llama-2-chat", model_format="ggufv2", replica=replica)
    launch = launch_of(engine="llama.cpp", request=request, options=options, use_gpu=use_gpu)
    there = available(machine, Occupancy(saves_states=saves))
    return size_launch(launch, Path("/w.gguf"), SHAPE, there, all_engines()["llama.cpp"].memory)


def test_states_take_a_quarter_of_the_engines_memory_and_at_most_512_mib() -> None:
    small = planned(n_ctx=512, n_parallel=1).sizing
    assert small.state_bytes // MIB == small.engine_bytes // 4 // MIB
    sizing = planned(n_ctx=8000, n_parallel=8).sizing
    assert sizing.state_bytes == 512 * MIB
    assert sizing.total_bytes == sizing.weights_bytes + sizing.kv_cache_bytes + sizing.overhead_bytes + 512 * MIB


def test_they_are_reserved_but_not_resident_at_the_start() -> None:
    plan, without = planned(replica=2), planned(saves=False, replica=2)
    assert plan.sizing.loaded_bytes == without.sizing.loaded_bytes
    states = 2 * plan.sizing.state_bytes
    assert footprint(plan).reserved[HOST] == footprint(without).reserved[HOST] + states
    assert footprint(plan).later_bytes == footprint(without).later_bytes + states


def test_on_gpus_they_are_in_the_memory_of_the_host() -> None:
    gpu = host(1, 24).gpus[0]
    machine = dataclasses.replace(CPU, gpus=(gpu,))
    plan = planned(machine, use_gpu=True, cache_ram_mib=300)
    assert footprint(plan).reserved == {0: plan.sizing.engine_bytes, HOST: 300 * MIB}
    assert planned(machine, use_gpu=True).sizing.state_bytes == 0  # nobody has measured it there


def test_they_take_no_more_than_what_is_free() -> None:
    without = planned(saves=False, n_ctx=4096, n_parallel=4).sizing.total_bytes
    machine = dataclasses.replace(CPU, memory_available=int((without + 100 * MIB) / 0.9))
    assert planned(machine, n_ctx=4096, n_parallel=4).sizing.state_bytes // MIB in (99, 100)


@pytest.mark.parametrize(
    "options", [{"cache_ram_mib": 0}, {"cache_type_k": "GGML_TYPE_Q8_0"}, {"embedding": True}, {"cache_prompt": False}]
)
def test_launches_that_share_nothing_plan_nothing(options: dict[str, Any]) -> None:
    assert planned(**options).sizing.state_bytes == 0
    assert planned(saves=False).sizing.state_bytes == 0


def test_the_dry_run_shows_them() -> None:
    plan = planned()
    entry = plan_entry(plan.launch, plan)
    assert entry["memory"]["saved_states"] == plan.sizing.state_bytes
    assert entry["memory"]["total"] == plan.sizing.total_bytes
