"""Where 7B, 13B and 70B go on one to eight GPUs, and what is refused with which numbers. No hardware is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.plans import launch_of
from tests.support.cases import in_one_test
from xinference.catalog.registry import builtin_families
from xinference.engines.llama_cpp.memory_model import MEMORY
from xinference.engines.registry import all_engines
from xinference.errors import Problem
from xinference.hardware.devices import Gpu, Host
from xinference.launch.match import match
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.eviction import HOST
from xinference.planning.occupancy import Occupancy, available, reserved_gpu_bytes
from xinference.planning.sizing import size_launch
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
) -> SizedPlan:
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
    launch = launch_of(
        uid="m", request=request, version=version, engine=engine, options=request.options, threads=16, use_gpu=True
    )
    there = available(machine, around or Occupancy())
    return size_launch(launch, WEIGHTS, shape, there, all_engines()[engine].memory)


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


@in_one_test("engine", ["vLLM", "SGLang"])
@in_one_test(
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
    assert made.sizing.memory_fraction is not None
    assert made.devices == (tuple(range(devices)),) and made.sizing.tensor_parallel == devices
    assert made.sizing.context_length == 4095 and made.sizing.slots >= 1
    assert made.sizing.memory_fraction <= 0.95


@in_one_test(
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
    assert made.sizing.tensor_parallel == 1 and made.sizing.memory_fraction is None
    spills = any("stay on the CPU" in reason for reason in made.reasons)
    assert spills == ((quantization, count, gib) in {("Q4_K_M", 1, 24), ("Q5_K_M", 2, 24)} and size == 70)


def test_replicas_spread_and_share_a_device_only_when_all_have_one() -> None:
    assert plan(7, "gptq", "Int4", "vLLM", host(4, 24), replica=3).devices == ((0,), (1,), (2,))
    shared = plan(7, "gptq", "Int4", "vLLM", host(2, 80), replica=4)
    assert sorted(shared.devices) == [(0,), (0,), (1,), (1,)]
    assert shared.sizing.memory_fraction is not None
    assert shared.sizing.memory_fraction <= 0.5


def test_named_devices_are_dealt_out_in_turn() -> None:
    made = plan(7, "pytorch", "none", "vLLM", host(4, 24), replica=2, gpu_idx=(0, 1, 2, 3))
    assert made.devices == ((0, 2), (1, 3))


@in_one_test(
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
    second = plan(7, "gptq", "Int4", "vLLM", machine, Occupancy(reserved_gpu_bytes(first)))
    fractions = [made.sizing.memory_fraction for made in (first, second)]
    assert None not in fractions and sum(f for f in fractions if f) <= 1
    full = {0: int(75 * GIB)}
    with pytest.raises(Problem, match="MiB too few"):
        plan(7, "pytorch", "none", "vLLM", machine, Occupancy(full))


def test_a_fraction_that_was_given_is_kept_and_bounds_the_cache() -> None:
    made = plan(7, "pytorch", "none", "vLLM", host(1, 80), options={"gpu_memory_utilization": 0.3})
    assert made.sizing.memory_fraction == 0.3
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
    launch = launch_of(request=request, engine="llama.cpp")
    theres = (available(machine, Occupancy({}, correction)) for correction in (0, 50 << 20))
    before, after = (size_launch(launch, WEIGHTS, shape, there, MEMORY).sizing for there in theres)
    assert after.loaded_bytes - before.loaded_bytes == 50 << 20 == after.correction_bytes


SHAPES = st.builds(
    ModelShape,
    weights_bytes=st.integers(1, 200 * GIB),
    kv_bytes_per_token=st.sampled_from([0, 1 << 10, 1 << 16, 1 << 19]),
    trained_context=st.sampled_from([0, 512, 4096, 131072]),
    vocab_size=st.integers(1, 200_000),
    hidden=st.sampled_from([0, 256, 4096, 8192]),
    heads=st.sampled_from([0, 3, 32, 64]),
    kv_heads=st.sampled_from([0, 8]),
)
GPUS = st.lists(st.tuples(st.integers(1, 80), st.floats(0, 1)), max_size=4)


@given(
    engine=st.sampled_from(["llama.cpp", "vLLM", "SGLang", "Transformers"]),
    shape=SHAPES,
    cards=GPUS,
    free=st.integers(0, 200 * GIB),
    taken=st.integers(0, 20 * GIB),
    left=st.none() | st.integers(0, 100 * GIB),
    replica=st.integers(1, 3),
)
def test_a_size_never_exceeds_what_is_available(
    engine: str,
    shape: ModelShape,
    cards: list[tuple[int, float]],
    free: int,
    taken: int,
    left: int | None,
    replica: int,
) -> None:
    gpus = tuple(Gpu(i, "GPU", gib * GIB, int(gib * GIB * share)) for i, (gib, share) in enumerate(cards))
    machine = Host(16, max(1, free), free, gpus)
    there = available(machine, Occupancy({0: taken}, host_outstanding=taken, host_remaining=left))
    request = LaunchRequest(model_name="llama-2-chat", replica=replica)
    launch = launch_of(request=request, engine=engine, use_gpu=bool(gpus))
    try:
        made = size_launch(launch, WEIGHTS, shape, there, all_engines()[engine].memory)
    except Problem as problem:
        assert problem.code == "does_not_fit"
        return
    promised = reserved_gpu_bytes(made)
    if not gpus:
        assert made.sizing.total_bytes * replica <= there.usable[HOST]
    elif any("stay on the CPU" in reason for reason in made.reasons):
        together = there.host_bytes + sum(gpu.memory_free for gpu in there.gpus)
        assert made.sizing.total_bytes * replica <= together
    else:
        assert all(count <= there.usable[index] for index, count in promised.items())
