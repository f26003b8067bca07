"""vLLM's adapter: its command line, its options and where it can run, without vLLM."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.engines.plans import AVX2, AVX512, GIB, host_of, plan_of, pooling_plan, spec_of, value_of
from tests.environments.newest import newest_spec
from tests.support.cases import in_one_test
from xinference.engines.replica_placement import (
    Placement,
    Rank,
)
from xinference.engines.vllm.engine import VLLM
from xinference.engines.vllm.packings import VERSION
from xinference.errors import Problem
from xinference.process.command import EngineCommand, ProgressProbe

ENGINE = VLLM()
CPU = Placement(Path("/env/bin/python"))


def command(family: str = "llama-2-chat", *, gpus: tuple[int, ...] = (), **plan: Any) -> EngineCommand:
    return ENGINE.command(plan_of(family, **plan), "sk-secret", Placement(CPU.python, gpus))


def test_it_listens_on_loopback_under_the_models_uid() -> None:
    argv = command().argv
    assert argv[:4] == ("/env/bin/python", "-I", "-m", "vllm.entrypoints.openai.api_server")
    assert value_of(argv, "--host") == "127.0.0.1"
    assert value_of(argv, "--port") == "{port}"
    assert value_of(argv, "--served-model-name") == "mine"
    assert value_of(argv, "--model") == "/weights/here"


def test_it_orders_waiting_requests_by_their_priority_unless_the_launch_says_otherwise() -> None:
    assert value_of(command().argv, "--scheduling-policy") == "priority"
    assert value_of(command(options={"scheduling_policy": "fcfs"}).argv, "--scheduling-policy") == "fcfs"


def test_usage_has_cached_tokens_unless_the_launch_says_otherwise() -> None:
    assert "--enable-prompt-tokens-details" in command().argv
    assert "--enable-prompt-tokens-details" not in command(options={"enable_prompt_tokens_details": False}).argv


def test_the_key_is_in_the_environment_and_not_on_the_command_line() -> None:
    made = command()
    assert made.env["VLLM_API_KEY"] == made.api_key == "sk-secret"
    assert not any("sk-secret" in word for word in made.argv)


def test_a_prompt_of_the_whole_promise_leaves_one_token_for_the_answer() -> None:
    assert value_of(command(context_length=4095).argv, "--max-model-len") == "4096"


def test_on_the_cpu_nothing_is_compiled_and_the_cache_is_what_the_plan_says_and_one_block() -> None:
    made = command(context_length=4095, slots=4, kv_cache_bytes=4 * GIB)
    assert "--enforce-eager" in made.argv
    assert value_of(made.argv, "--dtype") == "bfloat16"
    assert int(value_of(made.argv, "--kv-cache-memory-bytes")) == 4 * GIB + 4 * GIB * 128 // (4 * 4096)
    assert made.env["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"
    assert made.env["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("envs", "used"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, None), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_on_the_cpu_waiting_threads_sleep_unless_the_launch_says_otherwise(
    envs: dict[str, str], used: str | None
) -> None:
    plan = plan_of()
    launch = plan.launch.with_request(msgspec.structs.replace(plan.request, envs=envs))
    placements = [Placement(CPU.python, gpus) for gpus in ((), (1,))]
    made = [ENGINE.command(replace(plan, launch=launch), "sk-secret", each) for each in placements]
    assert [each.env.get("GOMP_SPINCOUNT") for each in made] == [used, None]


def test_on_gpus_the_plans_devices_and_share_of_their_memory_are_told() -> None:
    made = command(gpus=(1, 3), tensor_parallel=2, memory_fraction=0.35)
    assert made.env["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert value_of(made.argv, "--tensor-parallel-size") == "2"
    assert value_of(made.argv, "--gpu-memory-utilization") == "0.35"
    assert "--enforce-eager" not in made.argv
    assert "--dtype" not in made.argv


@in_one_test(
    ("family", "tools", "reasoning"),
    [
        ("qwen2.5-instruct", "hermes", None),
        ("qwen3", "hermes", "qwen3"),
        ("Qwen3-Coder", "qwen3_coder", None),
        ("llama-3.1-instruct", "llama3_json", None),
        ("mistral-instruct-v0.3", "mistral", None),
        ("deepseek-r1-distill-qwen", "hermes", "deepseek_r1"),
        ("gpt-oss", "openai", "openai_gptoss"),
        ("llama-2-chat", "hermes", None),
    ],
)
def test_each_family_gets_its_parsers(family: str, tools: str, reasoning: str | None) -> None:
    argv = command(family).argv
    assert value_of(argv, "--tool-call-parser") == tools
    assert ("--reasoning-parser" in argv) == (reasoning is not None)
    assert reasoning is None or value_of(argv, "--reasoning-parser") == reasoning


def test_the_registrys_chat_template_is_passed_whole_and_never_read_as_the_port() -> None:
    template = value_of(command("smollm2-instruct").argv, "--chat-template")
    assert "<|im_start|>" in template
    assert "{port}" not in template


def test_a_users_option_wins_over_ours() -> None:
    argv = command(options={"dtype": "float32", "enforce_eager": False, "tool_call_parser": "pythonic"}).argv
    assert value_of(argv, "--dtype") == "float32"
    assert "--no-enforce-eager" in argv
    assert value_of(argv, "--tool-call-parser") == "pythonic"


@pytest.mark.parametrize("given", ["mine=/adapters/one", ["mine=/adapters/one"], {"mine": "/adapters/one"}])
def test_lora_adapters_are_turned_on_by_naming_them(given: Any) -> None:
    argv = command(options=ENGINE.check_options({"lora_modules": given}, {})).argv
    assert "--enable-lora" in argv
    assert value_of(argv, "--lora-modules") == "mine=/adapters/one"


@pytest.mark.parametrize(
    ("given", "checked"),
    [
        ({"gpu_memory_utilization": 1}, {"gpu_memory_utilization": 1}),
        ({"model_quantization": "fp8"}, {"quantization": "fp8"}),
        ({"speculative_config": {"num_speculative_tokens": 3}}, {"speculative_config": {"num_speculative_tokens": 3}}),
        ({"compilation_config": '{"mode": 3}'}, {"compilation_config": '{"mode": 3}'}),
        ({"trust_remote_code": True, "swap_space": 4, "quantization": None}, {"trust_remote_code": True}),
    ],
)
def test_options_of_vllm_are_taken_by_their_names_and_older_ones(given: dict[str, Any], checked: Any) -> None:
    assert ENGINE.check_options(given, {}) == checked


@in_one_test(
    ("given", "code", "said"),
    [
        ({"gpu_memory_utilisation": 0.5}, "unknown_option", "--gpu_memory_utilization"),
        ({"max_model_len": "many"}, "bad_option", "'many'"),
        ({"max_num_seqs": True}, "bad_option", "int"),
        ({"enforce_eager": 1}, "bad_option", "true or false"),
        ({"port": 80}, "bad_option", "--port"),
        ({"api_key": "x"}, "bad_option", "--api_key"),
        ({"served_model_name": "x"}, "bad_option", "--served_model_name"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_starts(given: dict[str, Any], code: str, said: str) -> None:
    with pytest.raises(Problem) as caught:
        ENGINE.check_options(given, {})
    assert caught.value.code == code
    assert said in f"{caught.value.cause} {caught.value.hint}"


def test_json_values_stand_on_the_command_line_as_json() -> None:
    argv = command(options={"speculative_config": {"method": "ngram"}, "seed": -1}).argv
    assert json.loads(value_of(argv, "--speculative-config")) == {"method": "ngram"}
    assert "--seed=-1" in argv


@in_one_test(
    ("spec", "flags", "reason"),
    [
        (spec_of("pytorch", "none"), AVX2, None),
        (spec_of("pytorch", "none"), frozenset({"sse4_2"}), "need avx2, fma, f16c"),
        (spec_of("gptq", "Int4"), AVX512, None),
        (spec_of("awq", "Int4"), AVX512, None),
        (spec_of("gptq", "Int4"), AVX2, "4-bit CPU kernels need AVX-512"),
        (spec_of("awq", "4-bit"), AVX2, "4-bit CPU kernels need AVX-512"),
        (spec_of("gptq", "Int8"), AVX512, "take 4-bit gptq only"),
        (spec_of("gptq", "3-bit"), AVX512, "no kernel for 3-bit"),
    ],
)
def test_a_cpu_host_is_told_which_instructions_are_lacking(spec: Any, flags: Any, reason: str | None) -> None:
    support = ENGINE.available(spec, host_of(flags=flags))
    assert (support.reason is None) == (reason is None), support.reason
    assert reason is None or reason in str(support.reason)


@pytest.mark.parametrize(
    ("cuda", "capability", "reason"),
    [
        ((13, 0), (8, 0), None),
        ((13, 2), (12, 0), None),
        ((12, 4), (9, 0), "driver 550.54 supports CUDA 12.4 at most"),
        ((13, 0), (6, 1), "no kernels for NVIDIA X"),
    ],
)
def test_a_gpu_host_is_told_of_its_driver_and_of_gpus_too_old(cuda: Any, capability: Any, reason: str | None) -> None:
    support = ENGINE.available(spec_of("gptq", "Int8"), host_of(gpus=1, cuda=cuda, capability=capability))
    assert (support.reason is None) == (reason is None), support.reason
    assert reason is None or reason in str(support.reason)


def test_its_environment_is_one_that_we_ship_for_this_hosts_hardware() -> None:
    for host, accelerator in ((host_of(), "cpu"), (host_of(gpus=1), "cuda")):
        spec = ENGINE.environment(host)
        assert spec is not None and spec.version == VERSION
        assert spec == newest_spec("vLLM", accelerator)


def test_a_pooling_model_is_started_as_one_and_has_its_own_paths() -> None:
    plan = pooling_plan("embedding")
    argv = ENGINE.command(plan, "k", CPU).argv
    assert value_of(argv, "--runner") == "pooling"
    # Its answer has no token: the limit is the longest input, which may be all that the model reads.
    assert value_of(argv, "--max-model-len") == str(plan.sizing.context_length)
    assert "--tool-call-parser" not in argv
    assert ENGINE.paths(plan) == {"/v1/embeddings", "/tokenize", "/detokenize"}
    assert "/v1/rerank" in ENGINE.paths(pooling_plan("rerank"))
    assert {"/v1/responses", "/v1/messages"} <= ENGINE.paths(plan_of())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "not enough memory"),
        ("CUDA error: no kernel image is available for execution on the device", "too old"),
        ("AttributeError: '_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'", "AVX-512"),
        ("ValueError: To serve at least one request with the models's max seq len (8192), 4.0 GiB KV cache is needed, "
         "which is larger than the available KV cache memory (1.0 GiB).", "not enough memory"),
        ("RuntimeError: Engine core initialization failed.", None),
    ],
)  # fmt: skip
def test_its_last_words_are_explained_where_they_are_known(line: str, said: str | None) -> None:
    hint = ENGINE.explain(["INFO starting", line, "more"])
    assert (hint is None) == (said is None)
    assert said is None or said in str(hint)


def test_its_progress_is_shown_by_the_request_that_computes_the_least() -> None:
    probe = command(slots=6).progress
    assert probe == ProgressProbe("/v1/completions", {"model": "mine", "prompt": "a", "max_tokens": 1}, max_in_flight=6)
    paths = {kind: ENGINE.command(pooling_plan(kind), "key", CPU).progress for kind in ("embedding", "rerank")}
    assert {kind: probe and probe.path for kind, probe in paths.items()} == {
        "embedding": "/v1/embeddings",
        "rerank": "/v1/rerank",
    }


def test_host_memory_in_place_of_a_devices_counts() -> None:
    assert command().extra_bytes == 0
    assert command(options={"cpu_offload_gb": 3, "kv_offloading_size": 1.5}).extra_bytes == int(4.5 * GIB)


def rank(number: int, **further: Any) -> EngineCommand:
    placement = Placement(CPU.python, (0, 1), rank=Rank(number, 2, f"10.0.0.{number + 1}", "10.0.0.1", 29_500, "eth1"))
    return ENGINE.command(plan_of("llama-2-chat", tensor_parallel=2, **further), "sk-secret", placement)


def test_several_nodes_meet_at_the_first_one() -> None:
    head, further = rank(0), rank(1)
    for number, made in enumerate((head, further)):
        assert made.argv[2:5] == ("-m", "vllm.entrypoints.cli.main", "serve")
        assert "--model" not in made.argv  # `vllm serve` refuses it
        assert value_of(made.argv, "--distributed-executor-backend") == "mp"
        assert value_of(made.argv, "--nnodes") == "2"
        assert value_of(made.argv, "--node-rank") == str(number)
        assert value_of(made.argv, "--master-addr") == "10.0.0.1"
        assert value_of(made.argv, "--master-port") == "29500"
        assert value_of(made.argv, "--pipeline-parallel-size") == "2"
        assert value_of(made.argv, "--tensor-parallel-size") == "2"
        assert made.env["VLLM_HOST_IP"] == f"10.0.0.{number + 1}"
        assert made.env["NCCL_SOCKET_IFNAME"] == made.env["GLOO_SOCKET_IFNAME"] == "eth1"
        assert value_of(made.argv, "--host") == "127.0.0.1"
    assert "--headless" not in head.argv and "--headless" in further.argv


def test_nodes_without_gpus_split_every_layer() -> None:
    placement = Placement(CPU.python, rank=Rank(1, 2, "10.0.0.2", "10.0.0.1", 29_500))
    argv = ENGINE.command(plan_of("llama-2-chat"), "sk-secret", placement).argv
    assert value_of(argv, "--tensor-parallel-size") == "2"
    assert "--pipeline-parallel-size" not in argv


def test_only_the_first_node_answers_requests() -> None:
    head, further = rank(0), rank(1)
    assert head.answers and head.progress is not None
    assert not further.answers and further.progress is None
