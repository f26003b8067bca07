"""SGLang's adapter: its command line, its options and where it can run; parsed by SGLang itself where it is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engines.plans import host_of, plan_of, spec_of, value_of
from tests.environments.newest import newest_spec
from xinference.engines.replica_placement import (
    Placement,
    Rank,
)
from xinference.engines.sglang.engine import OPTIONS, PROGRAM, SGLang
from xinference.engines.sglang.packings import VERSION
from xinference.engines.sglang.server import complete
from xinference.errors import Problem
from xinference.process.command import EngineCommand, ProgressProbe

ENGINE = SGLang()
#: An interpreter that has `sglang` of the locked version, with or without CUDA.
PYTHON = os.environ.get("XINFERENCE_TEST_SGLANG_PYTHON")
PARSE = """
import dataclasses, json, sys
from sglang.srt.server_args import prepare_server_args
args = prepare_server_args(sys.argv[1:])
print(json.dumps({name: getattr(args, name) for name in json.loads(sys.stdin.read())}))
"""


def command(family: str = "qwen3", *, gpus: tuple[int, ...] = (0,), **plan: Any) -> EngineCommand:
    return ENGINE.command(plan_of(family, **plan), "sk-secret", Placement(Path("/env/bin/python"), gpus))


def test_it_is_started_by_our_program_on_loopback_under_the_models_uid() -> None:
    argv = command(gpus=(1, 3), tensor_parallel=2, memory_fraction=0.4, context_length=4095, slots=6).argv
    assert argv[:3] == ("/env/bin/python", "-I", str(PROGRAM))
    told = {"--host": "127.0.0.1", "--port": "{port}", "--served-model-name": "mine", "--tp-size": "2"}
    told |= {"--mem-fraction-static": "0.4", "--context-length": "4096", "--max-running-requests": "6"}
    assert {option: value_of(argv, option) for option in told} == told


def test_it_orders_waiting_requests_by_their_priority_and_interrupts_none() -> None:
    argv = command().argv
    flags = {"--enable-priority-scheduling", "--schedule-low-priority-values-first", "--disable-priority-preemption"}
    assert flags <= {*argv}
    assert value_of(argv, "--default-priority-value") == "0"


def test_usage_has_cached_tokens() -> None:
    assert "--enable-cache-report" in command().argv


@pytest.mark.parametrize("options", [{"schedule_policy": "lpm"}, {"enable_priority_scheduling": False}])
def test_a_launch_may_order_the_requests_of_sglang_otherwise(options: dict[str, Any]) -> None:
    """SGLang does not start with a priority and another policy than its first."""
    assert not any("priority" in word for word in command(options=options).argv)


def test_key_and_template_are_in_the_environment_and_not_on_the_command_line() -> None:
    made = command("smollm2-instruct", gpus=(1, 3))
    assert made.env["XINFERENCE_ENGINE_KEY"] == "sk-secret"
    assert "<|im_start|>" in made.env["XINFERENCE_CHAT_TEMPLATE"]
    assert made.env["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert not any("sk-secret" in word or "<|im_start|>" in word for word in made.argv)


def test_its_program_puts_key_and_template_in_place_and_forgets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XINFERENCE_ENGINE_KEY", "sk-secret")
    monkeypatch.setenv("XINFERENCE_CHAT_TEMPLATE", "{{ messages }}")
    words = complete(["--port", "1"], tmp_path)
    assert words[:4] == ["--port", "1", "--api-key", "sk-secret"]
    assert Path(value_of(tuple(words), "--chat-template")).read_text() == "{{ messages }}"
    assert "XINFERENCE_ENGINE_KEY" not in os.environ
    assert "XINFERENCE_CHAT_TEMPLATE" not in os.environ


@pytest.mark.parametrize(
    ("family", "tools", "reasoning"),
    [
        ("qwen2.5-instruct", "qwen25", None),
        ("Qwen3-Thinking", "qwen25", "qwen3-thinking"),
        ("Qwen3-Coder", "qwen3_coder", None),
        ("llama-3.1-instruct", "llama3", None),
        ("deepseek-r1-distill-llama", "hermes", "deepseek-r1"),
    ],
)
def test_each_family_gets_its_parsers(family: str, tools: str, reasoning: str | None) -> None:
    argv = command(family).argv
    assert value_of(argv, "--tool-call-parser") == tools
    assert reasoning is None or value_of(argv, "--reasoning-parser") == reasoning
    assert ("--reasoning-parser" in argv) == (reasoning is not None)


def test_a_host_without_a_gpu_is_told_so_before_anything_is_fetched() -> None:
    support = ENGINE.available(spec_of("pytorch", "none"), host_of(no_gpu_reason="NVML: Driver Not Loaded"))
    assert "no CUDA device (NVML: Driver Not Loaded)" in str(support.reason)
    assert ENGINE.available(spec_of("pytorch", "none"), host_of(gpus=1))
    old = ENGINE.available(spec_of("pytorch", "none"), host_of(gpus=1, cuda=(12, 4)))
    assert "CUDA 12.4 at most" in str(old.reason)


def test_its_environment_is_one_that_we_ship() -> None:
    spec = ENGINE.environment(host_of(gpus=1))
    assert spec is not None and spec.version == VERSION
    assert spec == newest_spec("SGLang", "cuda")


def test_options_are_taken_by_its_names_and_older_ones_and_others_refused() -> None:
    given = {"mem_fraction_static": 0.5, "tensor_parallel_size": 2, "log_level": "debug", "disable_cuda_graph": True}
    checked = ENGINE.check_options(given, {})
    assert checked == {"mem_fraction_static": 0.5, "tp_size": 2, "log_level": "debug", "disable_cuda_graph": True}
    with pytest.raises(Problem, match="mem_fraction"):
        ENGINE.check_options({"mem_fraction": 0.5}, {})
    with pytest.raises(Problem, match="--api_key"):
        ENGINE.check_options({"api_key": "x"}, {})


@pytest.mark.skipif(PYTHON is None, reason="XINFERENCE_TEST_SGLANG_PYTHON names no interpreter that has sglang")
@pytest.mark.timeout(300)
def test_sglangs_own_parser_takes_the_command_line() -> None:
    assert PYTHON is not None
    argv = command(options={"disable_cuda_graph": True, "lora_paths": {"a": "/b"}}, memory_fraction=0.5).argv
    words = [*argv[3:], "--api-key", "sk-secret"]
    wanted: dict[str, Any] = {
        "context_length": 4096,
        "max_running_requests": 4,
        "mem_fraction_static": 0.5,
        "tp_size": 1,
    }
    wanted |= {"served_model_name": "mine", "model_path": "/weights/here", "api_key": "sk-secret"}
    wanted |= {"tool_call_parser": "qwen25", "reasoning_parser": "qwen3", "enable_lora": True}
    ended = subprocess.run(
        [PYTHON, "-c", PARSE, *(word.replace("{port}", "30000") for word in words)],
        input=json.dumps([*wanted]), capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == wanted


@pytest.mark.skipif(PYTHON is None, reason="XINFERENCE_TEST_SGLANG_PYTHON names no interpreter that has sglang")
@pytest.mark.timeout(300)
def test_the_shipped_options_are_those_that_sglangs_parser_has() -> None:
    assert PYTHON is not None
    program = PROGRAM.with_name("describe_options.py")
    printed = subprocess.run([PYTHON, program, "sglang"], capture_output=True, text=True, check=True, timeout=280)
    assert json.loads(printed.stdout)["options"] == OPTIONS.kinds


@pytest.mark.process
def test_its_program_imports_nothing_of_ours() -> None:
    ended = subprocess.run([sys.executable, "-I", PROGRAM], capture_output=True, text=True, env={"PATH": ""})
    assert "XINFERENCE_ENGINE_KEY" in ended.stderr


def test_its_progress_is_shown_by_its_own_route_which_computes_a_token() -> None:
    assert command().progress == ProgressProbe("/health_generate")


def test_host_memory_for_the_cache_counts_if_its_size_is_known() -> None:
    assert command().extra_bytes == 0
    assert command(options={"enable_hierarchical_cache": True, "hicache_size": 4}).extra_bytes == 4 << 30
    assert command(options={"enable_hierarchical_cache": True}).extra_bytes is None


@pytest.mark.parametrize(("address", "meeting"), [("10.0.0.1", "10.0.0.1:29500"), ("fd00::1", "[fd00::1]:29500")])
def test_several_nodes_meet_at_the_first_one(address: str, meeting: str) -> None:
    made = []
    for number in (0, 1):
        placement = Placement(
            Path("/env/bin/python"), (0, 1), rank=Rank(number, 2, "10.0.0.9", address, 29_500, "eth1")
        )
        made.append(ENGINE.command(plan_of("qwen3", tensor_parallel=2), "sk-secret", placement))
        told = {"--nnodes": "2", "--node-rank": str(number), "--dist-init-addr": meeting, "--pp-size": "2"}
        told |= {"--tp-size": "2", "--host": "127.0.0.1"}
        assert {option: value_of(made[number].argv, option) for option in told} == told
        assert made[number].env["NCCL_SOCKET_IFNAME"] == made[number].env["GLOO_SOCKET_IFNAME"] == "eth1"
    head, further = made
    assert head.answers and head.progress is not None
    assert not further.answers and further.progress is None
