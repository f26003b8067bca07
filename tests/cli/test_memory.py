"""`cal-model-mem` counts grouped heads, real bits and any case, and asks no server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.catalog.custom import EMBEDDING_2
from tests.cli.conftest import Run
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.engines.registry import all_engines
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.match import match
from xinference.launch.plan import LaunchDraft, ResolvedLaunch
from xinference.launch.request import LaunchRequest
from xinference.local_commands.memory import Estimate, estimate
from xinference.planning.expected_shape import expected_shape
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.sizing import size_launch

GIB = 1024**3
CPU = Host(16, 64 * GIB, 64 * GIB, cpu_flags=frozenset({"avx2"}))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, offline=True)


def one(settings: Settings, size: int | str, model_format: str, quantization: str | None, bits: int = 16) -> Estimate:
    return estimate(
        model_name="llama-2-chat",
        size_in_billions=size,
        model_format=model_format,
        quantization=quantization,
        context_length=4096,
        kv_cache_bits=bits,
        settings=settings,
    )[0]


def test_grouped_heads_are_kept_once(settings: Settings) -> None:
    # 80 layers, 8 of 64 heads keep keys and values, 128 elements each, 2 bytes.
    assert one(settings, 70, "pytorch", "none").kv_cache_bytes == 80 * 8 * 128 * 2 * 2 * 4096
    assert one(settings, 7, "pytorch", "none").kv_cache_bytes == 32 * 32 * 128 * 2 * 2 * 4096


@pytest.mark.parametrize(
    ("model_format", "quantization", "gigabytes"),
    [  # sizes of the published repositories' files
        ("ggufv2", "Q2_K", 2.83),
        ("ggufv2", "q4_k_m", 4.08),
        ("ggufv2", "Q6_K", 5.53),
        ("ggmlv3", "q5_1", 5.06),
        ("pytorch", "none", 13.48),
        ("pytorch", None, 13.48),
        ("gptq", "Int4", 3.90),
        ("awq", "int4", 3.89),
    ],
)
def test_weights_are_within_a_twentieth_of_the_published_files(
    settings: Settings, model_format: str, quantization: str | None, gigabytes: float
) -> None:
    assert one(settings, 7, model_format, quantization).weights_bytes == pytest.approx(gigabytes * 1e9, rel=0.05)


def test_a_name_alone_is_the_version_of_a_launch_with_the_usual_context(settings: Settings) -> None:
    first = estimate(model_name="llama-2-chat", settings=settings)[0]
    assert (first.version_id, first.context_length) == ("llama-2-chat--7B--ggufv2--Q4_K_M", 4096)


def test_a_context_below_the_usual_one_is_the_default(settings: Settings) -> None:
    assert estimate(model_name="tiny-llama", settings=settings)[0].context_length == 2048


def test_a_tag_names_the_size_and_the_quantization(settings: Settings) -> None:
    assert estimate(model_name="qwen2.5-instruct:7b-q8_0", settings=settings)[0].version_id == (
        "qwen2.5-instruct--7B--ggufv2--Q8_0"
    )


def test_the_cache_follows_the_width_of_its_elements(settings: Settings) -> None:
    eight, thirty_two = (one(settings, 7, "ggufv2", "Q4_0", bits).kv_cache_bytes for bits in (8, 32))
    assert thirty_two == 4 * eight


def test_a_model_whose_shape_is_not_known_is_a_problem_that_says_how_to_know_it(settings: Settings) -> None:
    with pytest.raises(Problem) as caught:
        estimate(
            model_name="gpt-2",
            size_in_billions="1_5",
            model_format="pytorch",
            quantization="none",
            context_length=512,
            settings=settings,
        )
    assert caught.value.code == "shape_unknown" and "xinference download" in str(caught.value.hint)


def test_the_command_prints_a_table_or_json_without_a_server(run: Run) -> None:
    flags = ["cal-model-mem", "-n", "Llama-2-Chat", "-s", "7", "-f", "ggufv2", "-q", "q4_k_m", "-c", "4096"]
    shown = run(*flags)
    assert shown.exit_code == 0 and shown.stdout.splitlines()[2].split()[0] == "llama.cpp"
    found = json.loads(run(*flags, "--kv-cache-dtype", "8", "--json").stdout)[0]
    assert (
        found["kv_cache_bytes"] == GIB
        and found["saved_states_bytes"] == 0
        and found["total_bytes"] > found["weights_bytes"] + GIB
    )


def test_what_no_registry_names_is_counted_by_its_own_files(settings: Settings) -> None:
    tiny = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
    found = estimate(
        model_name=str(tiny),
        size_in_billions="0_002",
        model_format="pytorch",
        quantization=None,
        context_length=128,
        settings=settings,
    )
    assert {each.engine for each in found} == {"vLLM", "SGLang", "Transformers"}
    assert found[0].weights_bytes == (tiny / "model.safetensors").stat().st_size
    assert found[0].source == str(tiny)


def test_a_model_that_was_registered_for_good_is_known(settings: Settings) -> None:
    folder = settings.home / "model" / "embedding"
    folder.mkdir(parents=True)
    (folder / "my-bge-2.json").write_text(json.dumps(EMBEDDING_2))
    with pytest.raises(Problem, match="does not have the layers and heads of my-bge-2"):
        estimate(
            model_name="my-bge-2",
            size_in_billions=0,
            model_format="pytorch",
            quantization=None,
            context_length=128,
            settings=settings,
        )


@pytest.mark.parametrize("name", ["qwen2.5-instruct", "smollm2-instruct", "llama-2-chat"])
@pytest.mark.parametrize("beginnings", [True, False])
def test_the_total_is_that_of_the_plan_of_a_launch(settings: Settings, name: str, beginnings: bool) -> None:
    settings = replace(settings, shared_beginnings=beginnings)
    request = LaunchRequest(model_name=name, model_format="ggufv2", quantization="Q8_0")
    version = match(builtin_families(), request)
    found = estimate(
        model_name=name, model_format="ggufv2", quantization="Q8_0", context_length=4096, settings=settings
    )[0]
    draft = LaunchDraft(name, request, version, "llama.cpp", use_gpu=False, threads=1)
    source = version.spec.sources[0]
    launch = ResolvedLaunch(draft, source, {"n_ctx": 4095, "n_parallel": 1})
    there = available(CPU, Occupancy(saves_states=settings.saves_states))
    model = all_engines()["llama.cpp"].memory
    sizing = size_launch(launch, Path("/w.gguf"), expected_shape(version, source)[0], there, model).sizing
    assert (found.engine, bool(found.saved_states_bytes)) == ("llama.cpp", beginnings)
    assert (found.saved_states_bytes, found.total_bytes) == (sizing.state_bytes, sizing.total_bytes)


@pytest.mark.parametrize(("text", "tokens"), [("32k", 32_768), ("8K", 8192), ("4096", 4096)])
def test_a_context_is_named_in_tokens_or_in_units_of_1024(run: Run, text: str, tokens: int) -> None:
    shown = run("cal-model-mem", "-n", "llama-2-chat", "-s", "7", "-f", "ggufv2", "-c", text, "--json")
    assert {each["context_length"] for each in json.loads(shown.stdout)} == {tokens}


@pytest.mark.parametrize("text", ["0", "0k", "100000000000000000000", "999999999k", "32m", "k", "-1k", "1.5k"])
def test_a_context_that_no_engine_has_is_refused_by_its_option(run: Run, text: str) -> None:
    shown = run("cal-model-mem", "-n", "llama-2-chat", "-c", text)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "--context-length" in shown.stderr and text in shown.stderr


def test_an_estimate_refuses_a_context_that_no_engine_has(settings: Settings) -> None:
    for context in (0, 10**20):
        with pytest.raises(Problem, match=f"context_length is {context}, but must be a number from 1 to 2147483647"):
            estimate(model_name="llama-2-chat", context_length=context, settings=settings)
