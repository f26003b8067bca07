"""A request and the facts make a plan, or a refusal with the way out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.catalog.models import Source
from xinference.catalog.registry import builtin_families
from xinference.engines.llama_cpp.memory_model import MEMORY as LLAMA_CPP
from xinference.engines.registry import all_engines
from xinference.errors import Problem
from xinference.hardware.devices import Gpu, Host
from xinference.launch.comparison import is_same_launch
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchDraft, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.facts import Facts
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.plan import draft_launch, resolve_launch
from xinference.planning.sizing import size_launch
from xinference.planning.summary import slots_and_context, summary

GIB = 1024**3
LAPTOP = Host(physical_cores=4, memory_total=16 * GIB, memory_available=12 * GIB)
SHAPE = ModelShape(weights_bytes=98_000_000, kv_bytes_per_token=23040, trained_context=8192, vocab_size=49152)
OPTIONS = {
    "llama.cpp": {"n_ctx": "int", "n_parallel": "int", "n_batch": "int", "use_jinja": "bool", "sampling.temp": "float"}
}
GPU_HOST = Host(8, 64 * GIB, 60 * GIB, (Gpu(0, "NVIDIA L4", 24 * GIB, 23 * GIB),))


def facts(host: Host = LAPTOP) -> Facts:
    return Facts(builtin_families(), all_engines(), host, OPTIONS)


def draft(request: LaunchRequest, host: Host = LAPTOP) -> LaunchDraft:
    return draft_launch(facts(host), request, "uid")


def plan(request: LaunchRequest, host: Host = LAPTOP) -> SizedPlan:
    drafted = draft(request, host)
    engine = all_engines()[drafted.engine]
    launch = resolve_launch(drafted, drafted.version.spec.sources[0], "the only one", engine)
    return size_launch(launch, Path("/weights.gguf"), SHAPE, available(host, Occupancy()), engine.memory)


def test_a_bare_name_takes_a_version_and_an_engine_that_runs_it_here() -> None:
    made = plan(LaunchRequest(model_name="smollm2-instruct"))
    assert made.version.version_id == "smollm2-instruct--0_135B--ggufv2--Q4_1"
    assert made.engine == "llama.cpp" and made.threads == 4
    assert (made.sizing.context_length, made.sizing.slots) == (4096, 1)


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("gpu_memory_utilization", "It is an option of vLLM: choose the engine with --model-engine."),
        ("tensor_parallel_size", "It is an option of vLLM: choose the engine with --model-engine."),
        ("mem_fraction_static", "It is an option of SGLang: choose the engine with --model-engine."),
        ("nothing_has_this_option", "Its 5 options are the fields"),
    ],
)
def test_an_option_of_another_engine_is_refused_with_the_name_of_that_engine(option: str, hint: str) -> None:
    with pytest.raises(Problem) as caught:
        draft(LaunchRequest(model_name="smollm2-instruct", options={option: 0.5}))
    assert caught.value.cause == f"llama.cpp has no option --{option}."
    assert (caught.value.hint or "").startswith(hint)


def test_a_gpu_on_a_machine_without_any_is_refused_without_advice_to_choose_another_one() -> None:
    with pytest.raises(Problem) as caught:
        draft(LaunchRequest(model_name="smollm2-instruct", gpu_idx=(7,)))
    assert caught.value.hint == "Leave --gpu-idx out."


def test_the_only_size_of_several_is_the_only_one_with_the_values_of_the_launch() -> None:
    made = plan(LaunchRequest(model_name="smollm2-instruct", quantization="Q4_0"))
    assert "size 0.36B: the only one with the values of this launch" in made.reasons


def test_the_planned_request_is_complete_so_that_planning_it_again_gives_the_same() -> None:
    made = plan(LaunchRequest(model_name="SMOLLM2-instruct", options={"n_ctx": 512}))
    again = plan(made.request)
    assert again.request == made.request
    assert again.sizing == made.sizing


def test_a_draft_of_its_own_request_is_the_same_draft() -> None:
    for request in (
        LaunchRequest(model_name="SMOLLM2-instruct"),
        LaunchRequest(model_name="qwen3", options={"n_ctx": 9}),
    ):
        drafted = draft(request)
        assert draft(drafted.request).request == drafted.request


def resolved(**fields: Any) -> ResolvedLaunch:
    drafted = draft(LaunchRequest(model_name="smollm2-instruct", **fields))
    source = drafted.version.spec.sources[0]
    return resolve_launch(drafted, source, "the only one", all_engines()[drafted.engine])


def test_the_hub_is_written_into_the_request_so_that_a_restart_takes_the_same() -> None:
    launch = resolved()
    assert launch.request.download_hub == "package_index"
    assert isinstance(launch.origin, Source) and launch.source == launch.origin


def test_weights_that_are_given_by_their_path_have_no_hub() -> None:
    drafted = draft(LaunchRequest(model_name="smollm2-instruct", model_path="/w.gguf", download_hub="modelscope"))
    launch = resolve_launch(drafted, Path("/w.gguf"), "given with --model-path", all_engines()[drafted.engine])
    assert (launch.source, launch.origin) == (None, Path("/w.gguf"))
    assert launch.request.download_hub == "modelscope"
    assert "weights at /w.gguf: given with --model-path" in launch.reasons


def test_a_launch_is_the_same_as_a_running_one_whose_hub_it_leaves_open() -> None:
    running = resolved().request
    assert is_same_launch(draft(LaunchRequest(model_name="smollm2-instruct")).request, running)
    assert is_same_launch(draft(running).request, running)
    for other in ({"download_hub": "modelscope"}, {"replica": 2}, {"options": {"n_ctx": 9}}, {"model_path": "/w"}):
        request = LaunchRequest(model_name="smollm2-instruct", **other)
        assert not is_same_launch(draft(request).request, running)


def test_every_choice_has_its_reason() -> None:
    reasons = "\n".join(plan(LaunchRequest(model_name="smollm2-instruct")).reasons)
    for word in (
        "engine llama.cpp",
        "hub package_index",
        "device: CPU, 4 threads",
        "context 4096",
        "1 slot with",
        "size 0.135B",
    ):
        assert word in reasons


def test_a_launch_shows_a_line_for_each_of_version_size_quantization_and_slots() -> None:
    made = plan(LaunchRequest(model_name="smollm2-instruct"))
    assert summary(made, LLAMA_CPP) == (
        "smollm2-instruct 0.135B ggufv2 Q4_1 on llama.cpp",
        "size 0.135B: the smallest of 0.135B, 0.36B, 1.7B (-s)",
        "quantization Q4_1: the one on package_index; others: Q4_K_M, Q8_0, Q2_K (-q)",
        "1 slot x 4096 tokens of context: 96 MiB of cache (--n_parallel, --n_ctx)",
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "1 slot x 4096 tokens of context: 96 MiB of cache (--n_parallel, --n_ctx)"),
        ({"n_parallel": 2}, "2 slots x 4096 tokens of context: 191 MiB of cache (--n_ctx)"),
        ({"n_parallel": 1, "n_ctx": 255}, "1 slot x 255 tokens of context: 6 MiB of cache"),
        ({"n_parallel": 1, "n_ctx": 8192}, "1 slot x 8191 tokens of context: 180 MiB of cache"),
        (
            {"n_parallel": 1, "n_ctx": 99999},
            "1 slot x 8191 tokens of context, the model's maximum, in place of 99999: 180 MiB of cache",
        ),
    ],
)
def test_the_line_of_slots_and_context_has_the_options_that_change_them(options: dict[str, int], line: str) -> None:
    made = plan(LaunchRequest(model_name="smollm2-instruct", options=options))
    assert slots_and_context(made, LLAMA_CPP) == line


def test_an_unknown_engine_gets_a_similar_one_and_all_names() -> None:
    with pytest.raises(Problem) as raised:
        plan(LaunchRequest(model_name="smollm2-instruct", model_engine="lama.cpp"))
    hint = raised.value.hint
    assert hint is not None and hint.startswith("Did you mean llama.cpp? The engines are ") and "vLLM" in hint


@pytest.mark.parametrize("name", ["sentence_transformers", "Flag", "transformers"])
def test_the_line_of_a_user_of_sentence_transformers_plans_the_whole_input(name: str) -> None:
    request = LaunchRequest(
        model_name="all-MiniLM-L6-v2", model_type="embedding", model_engine=name, options={"context_length": 256}
    )
    host = replace(LAPTOP, cpu_flags=frozenset({"avx2"}))
    made = plan(request, host)
    assert (made.engine, made.request.model_engine) == ("Transformers", "Transformers")
    assert made.sizing.context_length == 256
    assert draft(made.request, host).request == made.request


def test_an_engine_that_does_not_take_the_format_is_refused_with_those_that_do() -> None:
    request = LaunchRequest(model_name="smollm2-instruct", model_engine="vllm", model_format="ggufv2")
    with pytest.raises(Problem, match="not ggufv2") as caught:
        plan(request)
    assert "llama.cpp can run it" in str(caught.value.hint)


def test_an_engine_that_is_not_here_is_refused_with_its_reason() -> None:
    request = LaunchRequest(model_name="llama-2-chat", model_engine="SGLang", model_format="gptq")
    with pytest.raises(Problem, match="SGLang can't run llama-2-chat gptq here") as caught:
        plan(request)
    assert "vLLM supports it, but" in str(caught.value.hint)


@in_one_test(
    ("fields", "said"),
    [
        ({"replica": 0}, "replica is 0"),
        ({"model_type": "rerank", "max_output_tokens": 5}, "max_output_tokens is for models that write text"),
        ({"n_gpu": "two"}, "n_gpu is 'two'"),
        ({"n_gpu": 1}, "n_gpu is 1, and this host has 0 GPUs"),
        ({"model_type": "video"}, "'video'"),
        ({"options": {"n_ctxx": 1}}, "no option --n_ctxx"),
        ({"options": {"n_ctx": "many"}}, "--n_ctx is 'many'"),
        ({"options": {"n_ctx": True}}, "--n_ctx is true"),
        ({"options": {"n_ctx": -5}}, "--n_ctx is -5"),
        ({"options": {"video_ffmpeg_bin_dir": "/tmp"}}, "--video_ffmpeg_bin_dir of llama.cpp is refused"),
        ({"envs": {"LD_PRELOAD": "/tmp/e.so"}}, "LD_PRELOAD is not a variable that a launch may set for llama.cpp"),
        ({"envs": {"OPENSSL_CONF": "/tmp/e.cnf"}}, "OPENSSL_CONF"),
        ({"envs": {"GGML_BACKEND_PATH": "/tmp/e.so"}}, "GGML_BACKEND_PATH"),
    ],
)
def test_what_no_plan_can_make_good_is_refused_by_name_and_value(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem) as caught:
        draft(LaunchRequest(model_name="smollm2-instruct", **fields))
    assert said in caught.value.cause and caught.value.status == 400


def test_older_names_of_options_still_work_and_switches_without_effect_are_dropped() -> None:
    made = plan(LaunchRequest(model_name="smollm2-instruct", options={"ctx_size": 256, "f16_kv": True, "n_gqa": 8}))
    assert made.options == {"n_ctx": 256}


def test_a_gpu_is_used_unless_the_cpu_was_asked_for() -> None:
    assert plan(LaunchRequest(model_name="smollm2-instruct"), GPU_HOST).use_gpu
    assert not plan(LaunchRequest(model_name="smollm2-instruct", n_gpu=None), GPU_HOST).use_gpu
