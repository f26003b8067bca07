"""Where 7B, 13B and 70B go on one to eight GPUs, and what is refused with which numbers. No hardware is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xinference.catalog.registry import builtin_families
from xinference.engines.llama_cpp.memory_model import MEMORY
from xinference.engines.registry import all_engines
from xinference.errors import Problem
from xinference.hardware.devices import Gpu, Host
from xinference.launch.match import match
from xinference.launch.plan import LaunchPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.occupancy import Occupancy, promised_bytes
from xinference.planning.sizing import settle
from xinference.planning.weights_estimate import estimated_shape

GIB = 1024**3
WEIGHTS = Path("/weights")


def host(count: int, gib: int) -> Host:
    """A machine with 64 GiB and so many GPUs, of which 1 % is taken by the driver."""
    gpus = tuple(Gpu(i, f"GPU of {gib} GB", gib * GIB, int(gib * GIB * 0.99), (9, 0), f"GPU-{i}") for i in range(count))
    return Host(16, 64 * GIB, 60 * GIB, gpus)


def plan(
    size: int,
    model_format: str,
    quantization: str,
    engine: str,
    machine: Host,
    around: Occupancy | None = None,
    **more: Any,
) -> LaunchPlan:
    request = LaunchRequest(
        model_name="llama-2-chat",
        model_size_in_billions=size,
        model_format=model_format,
        quantization=quantization,
        **{"options": {}} | more,
    )
    version = match(builtin_families(), request)
    assert version.spec.shape is not None
    shape = estimated_shape(version.spec.shape, model_format, quantization, 4096)
    open_plan = LaunchPlan("m", request, version, engine, None, None, 16, True, request.options)
    return settle(
        *(open_plan, WEIGHTS, shape, machine, all_engines()[engine].memory),
        around=around or Occupancy(),
    )


VLLM_TABLE = [
    # size, format, quantization -> (GPUs, GB each): devices that one replica gets, 0 for a refusal
    (7, "pytorch", "none", {(1, 24): 1, (2, 24): 1, (4, 24): 1, (8, 24): 1, (1, 80): 1, (8, 80): 1}),
    (13, "pytorch", "none", {(1, 24): 0, (2, 24): 2, (4, 24): 2, (8, 24): 2, (1, 80): 1, (8, 80): 1}),
    (70, "pytorch", "none", {(1, 24): 0, (4, 24): 0, (8, 24): 8, (1, 80): 0, (2, 80): 2, (8, 80): 2}),
    (7, "gptq", "Int4", {(1, 24): 1, (8, 24): 1, (1, 80): 1}),
    (13, "gptq", "Int4", {(1, 24): 1, (2, 24): 1, (1, 80): 1}),
    (70, "gptq", "Int4", {(1, 24): 0, (2, 24): 2, (3, 24): 2, (8, 24): 2, (1, 80): 1, (8, 80): 1}),
    (70, "awq", "Int4", {(1, 24): 0, (2, 24): 2, (4, 24): 2, (1, 80): 1, (2, 80): 1}),
]  # fmt: skip


@pytest.mark.parametrize("engine", ["vLLM", "SGLang"])
@pytest.mark.parametrize(
    ("size", "model_format", "quantization", "count", "gib", "devices"),
    [(*row[:3], count, gib, devices) for row in VLLM_TABLE for (count, gib), devices in row[3].items()],
)
def test_as_few_gpus_as_hold_the_weights_and_one_whole_context(
    engine: str, size: int, model_format: str, quantization: str, count: int, gib: int, devices: int
) -> None:
    if not devices:
        with pytest.raises(Problem) as caught:
            plan(size, model_format, quantization, engine, host(count, gib))
        assert caught.value.code == "does_not_fit"
        assert all(f"GPU {i} (GPU of {gib} GB) has" in caught.value.cause for i in range(count))
        assert "MiB too few" in caught.value.cause
        return
    made = plan(size, model_format, quantization, engine, host(count, gib))
    assert made.sizing is not None and made.sizing.memory_fraction is not None
    assert made.devices == (tuple(range(devices)),) and made.sizing.tensor_parallel == devices
    assert made.sizing.context_length == 4095 and made.sizing.slots >= 1
    assert made.sizing.memory_fraction <= 0.95


@pytest.mark.parametrize(
    ("size", "quantization", "count", "gib", "devices"),
    [
        (7, "Q4_K_M", 1, 24, 1),
        (7, "Q4_K_M", 8, 24, 1),
        (13, "Q8_0", 1, 24, 1),
        (70, "Q4_K_M", 1, 24, 1),  # and the host
        (70, "Q4_K_M", 2, 24, 2),
        (70, "Q5_K_M", 3, 24, 3),  # whole layers: any number will do
        (70, "Q5_K_M", 2, 24, 2),  # and the host
        (70, "Q4_K_M", 1, 80, 1),
        (70, "Q4_K_M", 8, 80, 1),
    ],
)
def test_llama_cpp_takes_whole_layers_and_leaves_on_the_cpu_what_finds_no_room(
    size: int, quantization: str, count: int, gib: int, devices: int
) -> None:
    made = plan(size, "ggufv2", quantization, "llama.cpp", host(count, gib))
    assert made.devices == (tuple(range(devices)),)
    assert made.sizing is not None and made.sizing.tensor_parallel == 1 and made.sizing.memory_fraction is None
    spills = any("stay on the CPU" in reason for reason in made.reasons)
    assert spills == ((quantization, count, gib) in {("Q4_K_M", 1, 24), ("Q5_K_M", 2, 24)} and size == 70)


def test_replicas_spread_and_share_a_device_only_when_all_have_one() -> None:
    assert plan(7, "gptq", "Int4", "vLLM", host(4, 24), replica=3).devices == ((0,), (1,), (2,))
    shared = plan(7, "gptq", "Int4", "vLLM", host(2, 80), replica=4)
    assert sorted(shared.devices) == [(0,), (0,), (1,), (1,)]
    assert shared.sizing is not None and shared.sizing.memory_fraction is not None
    assert shared.sizing.memory_fraction <= 0.5


def test_named_devices_are_dealt_out_in_turn() -> None:
    made = plan(7, "pytorch", "none", "vLLM", host(4, 24), replica=2, gpu_idx=(0, 1, 2, 3))
    assert made.devices == ((0, 2), (1, 3))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"replica": 2, "gpu_idx": (0, 1, 2)}, "must be a multiple of replica"),
        ({"gpu_idx": (0, 7)}, "gpu_idx names GPU 7"),
        ({"gpu_idx": (1, 1)}, "the same GPU twice"),
        ({"gpu_idx": (0, 1, 2)}, "can't split"),
        ({"n_gpu": 3}, "can't split"),
        ({"options": {"gpu_memory_utilization": 0.999}}, "gpu_memory_utilization 0.999"),
        (
            {"options": {"max_model_len": 4096, "max_num_seqs": 64}},
            "64 slots and a context of 4095 tokens needs 38,",
        ),
    ],
)
def test_what_the_devices_can_not_give_is_refused_by_name(more: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem) as caught:
        plan(7, "pytorch", "none", "vLLM", host(4, 24), **more)
    assert said in caught.value.cause and caught.value.status == 400


def test_two_models_share_a_card_by_fractions_of_what_each_needs() -> None:
    machine = host(1, 80)
    first = plan(7, "gptq", "Int4", "vLLM", machine)
    # The first was granted its bytes and has not taken them yet: the driver still shows them as free.
    second = plan(7, "gptq", "Int4", "vLLM", machine, Occupancy(promised_bytes(first)))
    fractions = [made.sizing.memory_fraction for made in (first, second) if made.sizing]
    assert None not in fractions and sum(f for f in fractions if f) <= 1
    full = {0: int(75 * GIB)}
    with pytest.raises(Problem, match="MiB too few"):
        plan(7, "pytorch", "none", "vLLM", machine, Occupancy(full))


def test_a_fraction_that_was_given_is_kept_and_bounds_the_cache() -> None:
    made = plan(7, "pytorch", "none", "vLLM", host(1, 80), options={"gpu_memory_utilization": 0.3})
    assert made.sizing is not None and made.sizing.memory_fraction == 0.3
    assert made.sizing.total_bytes <= 24 * GIB


def test_a_device_in_mig_mode_takes_nothing_as_a_whole() -> None:
    machine = host(2, 80)
    split = replace(machine, gpus=(replace(machine.gpus[0], mig=True), machine.gpus[1]))
    assert plan(7, "pytorch", "none", "vLLM", split).devices == ((1,),)


def test_a_measurement_corrects_the_overhead_on_the_cpu() -> None:
    machine = host(0, 0)
    request = LaunchRequest(model_name="llama-2-chat", model_format="ggufv2", quantization="Q4_K_M")
    version = match(builtin_families(), request)
    assert version.spec.shape is not None
    shape = estimated_shape(version.spec.shape, "ggufv2", "Q4_K_M", 4096)
    bare = LaunchPlan("m", request, version, "llama.cpp", None, None, 16, False)
    before, after = (
        settle(bare, WEIGHTS, shape, machine, MEMORY, around=Occupancy({}, c)).sizing for c in (0, 50 << 20)
    )
    assert before is not None and after is not None
    assert after.loaded_bytes - before.loaded_bytes == 50 << 20 == after.correction_bytes
