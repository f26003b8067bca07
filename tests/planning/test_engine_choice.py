"""A launch fixes only what its request names; everything else follows from what can run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engines.plans import AVX512, GIB, host_of
from tests.support.cases import check_each
from xinference.catalog.registry import builtin_families
from xinference.engines.registry import all_engines
from xinference.environments.environments import EnvironmentEntry
from xinference.environments.spec import EnvironmentSpec
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.request import LaunchRequest
from xinference.planning.engine_choice import VersionChoice, choose_version, version_to_download
from xinference.planning.facts import Facts
from xinference.planning.plan import draft_launch

LAPTOP = host_of(flags=AVX512)
GPU_HOST = host_of(gpus=1)


def environments(**installed: bool) -> dict[str, EnvironmentEntry]:
    """Environments of three sizes; those that are named are installed or not."""
    sizes = {"vLLM": 22, "SGLang": 90, "Transformers": 12}
    return {
        name: EnvironmentEntry(
            EnvironmentSpec(name, "1.0", "cpu"), size * GIB // 10, Path("/python") if installed.get(name) else None
        )
        for name, size in sizes.items()
    }


def choose(
    name: str, host: Host = LAPTOP, known: dict[str, EnvironmentEntry] | None = None, **fields: Any
) -> VersionChoice:
    facts = Facts(builtin_families(), all_engines(), host, environments=known or {})
    return choose_version(facts, LaunchRequest(model_name=name, **fields))


def ids(choice: VersionChoice) -> tuple[str, str]:
    return choice.version.version_id, choice.engine.table.engine


@pytest.mark.parametrize("engine", ["vLLM", "vllm", "Transformers"])
@pytest.mark.parametrize("name", ["qwen2.5-instruct", "llama-2-chat", "smollm2-instruct", "llama-3.2-instruct"])
def test_an_engine_gets_a_format_that_it_runs(name: str, engine: str) -> None:
    choice = choose(name, model_engine=engine)
    assert choice.version.spec.model_format == "pytorch" and choice.version.quantization == "none"


@pytest.mark.parametrize("engine", [*all_engines()])
@pytest.mark.parametrize("host", [LAPTOP, GPU_HOST], ids=["laptop", "gpu"])
def test_an_engine_alone_is_refused_only_where_it_runs_no_version_of_the_model(engine: str, host: Host) -> None:
    each = all_engines()[engine]

    def check(name: str) -> None:
        family = builtin_families()[name]
        runs = (
            family.model_type in each.table.model_types
            and each.reads(family)
            and any(
                each.table.supports(spec, quantization) and each.available(spec, host)
                for spec in family.model_specs
                for quantization in spec.quantizations
            )
        )
        if runs:
            assert choose(name, host, model_engine=engine).engine is each
            return
        with pytest.raises(Problem) as caught:
            choose(name, host, model_engine=engine)
        assert caught.value.hint

    check_each(builtin_families(), check)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model_engine": "vLLM", "model_size_in_billions": 7}, ("qwen2.5-instruct--7B--pytorch--none", "vLLM")),
        ({"model_engine": "vLLM", "quantization": "Int4"}, ("qwen2.5-instruct--0_5B--gptq--Int4", "vLLM")),
        ({"quantization": "8-bit"}, ("qwen2.5-instruct--0_5B--pytorch--8-bit", "Transformers")),
        ({"quantization": "Q8_0", "model_size_in_billions": "7B"}, ("qwen2.5-instruct--7B--ggufv2--Q8_0", "llama.cpp")),
        ({}, ("qwen2.5-instruct--0_5B--ggufv2--q4_k_m", "llama.cpp")),
    ],
)
def test_what_a_request_names_is_kept_and_the_rest_follows(fields: dict[str, Any], expected: tuple[str, str]) -> None:
    assert ids(choose("qwen2.5-instruct", **fields)) == expected


def test_a_refusal_names_the_engines_and_the_version_that_would_do() -> None:
    with pytest.raises(Problem) as caught:
        choose("qwen2.5-instruct", model_engine="vLLM", quantization="q4_k_m")
    assert caught.value.cause == (
        "qwen2.5-instruct q4_k_m can't run on vLLM: vLLM runs pytorch, gptq, awq, fp8, fp4, not ggufv2."
    )
    assert caught.value.hint == (
        "llama.cpp can run it. vLLM can run it with --model-format pytorch --quantization none."
    )


def test_a_format_that_no_engine_has_is_refused_with_the_reason_and_a_format_that_runs() -> None:
    with pytest.raises(Problem) as caught:
        choose("qwen3", model_format="mlx")
    assert "MLX" in caught.value.cause
    assert caught.value.hint is not None and "--model-format ggufv2" in caught.value.hint


@pytest.mark.parametrize("name", ["MiniCPM-V-4.6", "qwen2-audio-instruct", "glm-4.5v"])
def test_transformers_refuses_models_of_other_images_and_sound_before_a_download(name: str) -> None:
    with pytest.raises(Problem, match=r"no images or sound of \w+, and it has no class for text alone") as caught:
        choose(name, model_engine="Transformers")
    assert caught.value.hint is not None and "vLLM" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    ["gemma-3-it", "qwen2-vl-instruct", "qwen2.5-vl-instruct", "Qwen3-VL-Instruct", "qwen3", "llama-3.1-instruct"],
)
def test_transformers_takes_models_whose_images_it_reads_and_those_with_a_class_for_text(name: str) -> None:
    assert ids(choose(name, model_engine="Transformers", model_format="pytorch"))[1] == "Transformers"


# -- engines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "engine", "why"),
    [
        ({}, "Transformers", "its environment is the smallest of the engines that can run it on this host"),
        ({"vLLM": True}, "vLLM", "its environment is installed"),
        ({"Transformers": True}, "Transformers", "its environment is installed"),
        ({"vLLM": True, "Transformers": True}, "vLLM", "the first engine that can run it on this host"),
    ],
)
def test_without_a_gpu_an_installed_engine_is_preferred_and_then_the_smallest(
    installed: dict[str, bool], engine: str, why: str
) -> None:
    choice = choose("qwen2.5-instruct", known=environments(**installed), model_format="pytorch")
    assert (choice.engine.table.engine, choice.engine_reason) == (engine, why)


def test_with_a_gpu_the_fastest_engine_is_preferred() -> None:
    known = environments(Transformers=True)
    assert choose("qwen2.5-instruct", GPU_HOST, known, model_format="pytorch").engine.table.engine == "vLLM"


def test_a_missing_environment_is_said_with_its_size() -> None:
    facts = Facts(builtin_families(), all_engines(), LAPTOP, environments=environments())
    draft = draft_launch(facts, LaunchRequest(model_name="qwen2.5-instruct", model_engine="vLLM"), "uid")
    line = "environment vllm-1.0-cpu: 2.2 GiB of packages are installed first"
    assert line in draft.reasons and line in draft.choices


def test_a_launch_with_adapters_gets_a_version_and_an_engine_that_load_them() -> None:
    adapters = {"lora_modules": [{"tuned": "/adapters/tuned"}]}
    plain, adapted = choose("qwen2.5-instruct"), choose("qwen2.5-instruct", options=adapters)
    assert plain.version.spec.model_format == "ggufv2"
    assert adapted.version.spec.model_format == "pytorch" and adapted.engine.table.loads_adapters
    assert "with LoRA adapters" in adapted.engine_reason


def test_a_quantization_that_no_engine_with_adapters_runs_is_refused_for_the_adapters() -> None:
    with pytest.raises(
        Problem, match="No engine here can run smollm2-instruct Q4_1 with LoRA adapters: vLLM runs pytorch"
    ):
        choose("smollm2-instruct", quantization="Q4_1", options={"lora_modules": [{"a": "/a"}]})


def test_an_engine_that_loads_no_adapters_refuses_them_where_the_launch_names_its_format() -> None:
    choice = choose("qwen2.5-instruct", model_format="ggufv2", options={"lora_modules": [{"a": "/a"}]})
    assert choice.engine.table.engine == "llama.cpp"  # whose check of the options has the reason


# -- memory -----------------------------------------------------------------------------------------------------


def test_the_nearest_quantization_that_fits_the_machine_is_chosen() -> None:
    choice = choose("code-llama-instruct", model_size_in_billions=34)
    assert choice.version.quantization == "Q3_K_S"
    assert choice.choices[-1].startswith(
        "quantization Q3_K_S: Q4_K_M (18.8 GiB) does not fit in 14.4 GiB; others: Q4_K_M, "
    )


def test_where_none_fits_the_usual_quantization_is_kept_for_a_plan_with_the_numbers() -> None:
    assert choose("llama-3.3-instruct").version.quantization == "Q4_K_M"


def test_a_named_quantization_is_kept_though_it_does_not_fit() -> None:
    assert choose("yi-1.5-chat", model_size_in_billions=34, quantization="Q8_0").version.quantization == "Q8_0"


# -- reasons ----------------------------------------------------------------------------------------------------


def test_size_and_quantization_have_one_line_each() -> None:
    assert choose("llama-2-chat").choices == (
        "size 7B: the smallest of 7B, 13B, 70B (-s)",
        "quantization Q4_K_M: the usual one; others: Q4_K_S, Q4_0, Q5_K_M and 8 more (-q)",
    )


def test_the_registrys_preference_is_said() -> None:
    assert choose("smollm2-instruct").choices[1] == (
        "quantization Q4_1: the one on package_index; others: Q4_K_M, Q8_0, Q2_K (-q)"
    )


def test_the_reasons_list_only_what_the_requested_engine_supports() -> None:
    assert choose("qwen2.5-instruct", model_engine="vLLM").reasons == (
        "size 0.5B: the smallest of 0.5B, 1.5B, 3B and 4 more (-s)",
        "format pytorch: the preferred one of pytorch, gptq, awq (-f)",
        "quantization none: the only one in the format pytorch",
    )


def test_what_the_request_names_needs_no_reason() -> None:
    choice = choose("llama-2-chat", model_size_in_billions=7, model_format="ggufv2", quantization="Q4_K_M")
    assert choice.choices == choice.reasons == ()


# -- downloads --------------------------------------------------------------------------------------------------


def download(**fields: Any) -> str:
    facts = Facts(builtin_families(), all_engines(), host_of())
    return version_to_download(facts, LaunchRequest(**fields)).version_id


def test_a_download_fetches_what_a_launch_would_run() -> None:
    assert download(model_name="llama-2-chat") == "llama-2-chat--7B--ggufv2--Q4_K_M"
    assert download(model_name="qwen2.5-instruct", model_engine="vLLM") == "qwen2.5-instruct--0_5B--pytorch--none"


def test_a_download_for_another_host_only_needs_an_engine_that_supports_it() -> None:
    assert download(model_name="llama-2-chat", model_engine="SGLang").endswith("--pytorch--none")
    with pytest.raises(Problem, match="can't run on SGLang"):
        download(model_name="llama-2-chat", model_engine="SGLang", model_format="ggufv2")
