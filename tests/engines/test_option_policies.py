"""Options that a launch may set: every option of every engine is in one group, and refused if it has other effects."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.engines.plans import launch_of, plan_of, sized, value_of
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.engines.llama_cpp.option_policy import POLICY as LLAMA_CPP
from xinference.engines.options.option_policy import OptionPolicy
from xinference.engines.options.risk import Risk
from xinference.engines.registry import all_engines
from xinference.engines.replica_placement import Placement
from xinference.engines.sglang import engine as sglang
from xinference.engines.transformers import engine as transformers
from xinference.engines.vllm import engine as vllm
from xinference.errors import Problem

# llama.cpp is asked for its parameters in a process of its own.
pytestmark = pytest.mark.process
ENGINES = all_engines()
PYTHON = Path("/env/bin/python")
TABLES = {"vLLM": vllm.OPTIONS, "SGLang": sglang.OPTIONS, "Transformers": transformers.OPTIONS}


@pytest.fixture(scope="module")
def described() -> dict[str, str]:
    """The parameters that the installed xllamacpp describes."""
    printed = subprocess.run(LlamaCpp.describe_argv, capture_output=True, text=True, check=True, timeout=120)
    known: dict[str, str] = json.loads(printed.stdout)["options"]
    return known


def refused(engine: str, known: dict[str, str], **options: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        ENGINES[engine].check_options(options, known)
    assert (caught.value.status, caught.value.code) == (400, "bad_option")
    return caught.value


# -- every option is in one group -------------------------------------------------------------------------------------


def test_every_parameter_of_xllamacpp_is_in_one_group(described: dict[str, str]) -> None:
    wrong = LLAMA_CPP.find_misclassified(described)
    assert not wrong, f"put these into one group of engines/llama_cpp/option_policy.py: {', '.join(wrong)}"


@pytest.mark.parametrize("engine", TABLES)
def test_every_option_of_an_engines_table_is_in_one_group(engine: str) -> None:
    table = TABLES[engine]
    wrong = table.policy.find_misclassified(table.kinds)
    assert not wrong, f"put these into one group of the option_policy.py of {engine}: {', '.join(wrong)}"


@pytest.mark.parametrize("engine", TABLES)
def test_no_group_contains_an_option_that_the_engine_does_not_have(engine: str) -> None:
    table = TABLES[engine]
    assert table.policy.available - table.kinds.keys() <= {"trust_plugins"}
    assert table.policy.rules.keys() <= table.policy.available


def test_an_option_in_no_group_is_detected_and_refused(described: dict[str, str]) -> None:
    assert LLAMA_CPP.find_misclassified([*described, "open_any_file"]) == ["open_any_file"]
    problem = refused("llama.cpp", {**described, "open_any_file": "str"}, open_any_file="/etc/passwd")
    assert "--open_any_file" in problem.cause and Risk.UNREVIEWED.value in problem.cause


def test_an_option_in_two_groups_is_detected() -> None:
    one = frozenset({"x"})
    policy = OptionPolicy("e", allowed=one, reserved=frozenset(), refused={Risk.FILES: one})
    assert policy.find_misclassified(["x"]) == ["x"]


# -- refused options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "risk"),
    [
        ("video_ffmpeg_bin_dir", "/tmp", Risk.PROGRAMS),
        ("mcp_servers_json", '{"mcpServers": {"x": {"command": "id"}}}', Risk.PROGRAMS),
        ("server_tools", ["exec_shell_command"], Risk.PROGRAMS),
        ("path_prompts_log_dir", "/tmp", Risk.PROMPTS),
        ("verbosity", 9, Risk.PROMPTS),
        ("mmproj.url", "http://127.0.0.1/x", Risk.NETWORK),
        ("mmproj.hf_repo", "me/mine", Risk.NETWORK),
        ("hf_token", "x", Risk.NETWORK),
        ("lora_adapters", [], Risk.FILES),
        ("out_file", "/tmp/x", Risk.FILES),
        ("logits_file", "/tmp/x", Risk.FILES),
        ("logits_output_dir", "/tmp", Risk.FILES),
        ("prompt_file", "/etc/passwd", Risk.FILES),
        ("in_files", ["/etc/passwd"], Risk.FILES),
        ("context_files", ["/etc/passwd"], Risk.FILES),
        ("tts_speaker_file", "/etc/passwd", Risk.FILES),
        ("slot_save_path", "/tmp", Risk.FILES),
        ("cors_origins", "*", Risk.HTTP_SERVER),
        ("endpoint_props", True, Risk.HTTP_SERVER),
        ("endpoint_slots", True, Risk.HTTP_SERVER),
        ("models_autoload", True, Risk.HTTP_SERVER),
        ("tensor_buft_overrides", ".*=CPU", Risk.UNREVIEWED),
    ],
)
def test_llama_cpp_refuses_an_option_with_other_effects(
    described: dict[str, str], option: str, value: Any, risk: Risk
) -> None:
    problem = refused("llama.cpp", described, **{option: value})
    assert f"--{option}" in problem.cause and risk.value in problem.cause and problem.hint


@pytest.mark.parametrize("option", ["port", "hostnames", "api_keys", "model", "ui", "kv_unified_per_slot"])
def test_an_option_that_xinference_sets_is_reserved(described: dict[str, str], option: str) -> None:
    assert f"--{option} is reserved: Xinference sets it itself." == refused("llama.cpp", described, **{option: 1}).cause


@pytest.mark.parametrize(
    ("engine", "option", "value", "risk"),
    [
        ("vLLM", "allowed_local_media_path", "/", Risk.FILES),
        ("vLLM", "log_config_file", "/tmp/x.json", Risk.FILES),
        ("vLLM", "profiler_config", {"torch_profiler_dir": "/tmp"}, Risk.FILES),
        ("vLLM", "kv_transfer_config", {"kv_connector": "x"}, Risk.NETWORK),
        ("vLLM", "otlp_traces_endpoint", "http://127.0.0.1", Risk.NETWORK),
        ("vLLM", "tool_server", "127.0.0.1:1", Risk.NETWORK),
        ("vLLM", "enable_log_requests", True, Risk.PROMPTS),
        ("vLLM", "trust_request_chat_template", True, Risk.REQUESTS),
        ("vLLM", "enable_prompt_embeds", True, Risk.REQUESTS),
        ("vLLM", "allowed_origins", ["*"], Risk.HTTP_SERVER),
        ("vLLM", "numa_bind_cpus", ["0-3"], Risk.PROGRAMS),
        ("vLLM", "additional_config", {}, Risk.UNREVIEWED),
        ("SGLang", "file_storage_path", "/tmp", Risk.FILES),
        ("SGLang", "delete_ckpt_after_loading", True, Risk.FILES),
        ("SGLang", "sidecar", "os", Risk.PROGRAMS),
        ("SGLang", "hicache_storage_backend", "dynamic", Risk.NETWORK),
        ("SGLang", "log_requests_target", ["/tmp"], Risk.PROMPTS),
        ("SGLang", "crash_dump_folder", "/tmp", Risk.PROMPTS),
        ("SGLang", "enable_custom_logit_processor", True, Risk.REQUESTS),
        ("SGLang", "enable_http2", True, Risk.HTTP_SERVER),
    ],
)
def test_an_engine_refuses_an_option_with_other_effects(engine: str, option: str, value: Any, risk: Risk) -> None:
    problem = refused(engine, {}, **{option: value})
    assert f"--{option} of {engine} is refused: it {risk.value}." == problem.cause and problem.hint


@pytest.mark.parametrize(
    ("engine", "option", "value"),
    [
        ("vLLM", "middleware", "evil.module"),
        ("vLLM", "tool_parser_plugin", "/tmp/evil.py"),
        ("vLLM", "reasoning_parser_plugin", "/tmp/evil.py"),
        ("vLLM", "worker_cls", "evil.Worker"),
        ("vLLM", "worker_extension_cls", "evil.Worker"),
        ("vLLM", "scheduler_cls", "evil.Scheduler"),
        ("vLLM", "logits_processors", ["evil.Processor"]),
        ("vLLM", "model_class_overrides", {"A": "evil:B"}),
        ("SGLang", "custom_weight_loader", ["evil.load"]),
        ("SGLang", "forward_hooks", [{"hook": "evil"}]),
    ],
)
def test_an_option_that_loads_code_needs_a_switch(engine: str, option: str, value: Any) -> None:
    for others in ({}, {"trust_plugins": False}, {"trust_remote_code": True}):
        problem = refused(engine, {}, **{option: value}, **others)
        assert Risk.CODE.value in problem.cause and "--trust_plugins true" in str(problem.hint)
    checked = ENGINES[engine].check_options({option: value, "trust_plugins": True}, {})
    assert checked == {option: value}, "the switch is not part of the engine's command line"


def test_a_revision_of_code_needs_the_switch_for_the_models_code() -> None:
    assert "--trust_remote_code true" in str(refused("vLLM", {}, code_revision="x").hint)
    options = {"code_revision": "x", "trust_remote_code": True}
    assert ENGINES["vLLM"].check_options(options, {}) == options


def test_a_switch_is_true_or_false() -> None:
    assert "true or false" in refused("vLLM", {}, trust_plugins="yes").cause


# -- values that open files or load code ---------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "option", "value", "message"),
    [
        ("vLLM", "chat_template", "/etc/passwd", "not a path"),
        ("vLLM", "chat_template", "../{{x}}", "not a path"),
        ("vLLM", "chat_template", "plain.jinja", "not a path"),
        ("SGLang", "chat_template", "/etc/passwd", "not a path"),
        ("SGLang", "completion_template", "x.json", "not a path"),
        ("vLLM", "generation_config", "/etc", "it must be one of auto, vllm"),
        ("vLLM", "load_format", "tensorizer", "it must be one of auto"),
        ("SGLang", "load_format", "remote", "it must be one of auto"),
        ("vLLM", "distributed_executor_backend", "evil.Executor", "it must be one of mp"),
        ("vLLM", "compilation_config", {"backend": "evil.compile"}, "'backend' is not allowed"),
        ("vLLM", "compilation_config", '{"mode": 3, "inductor_passes": {"x": "evil.run"}}', "'inductor_passes'"),
        ("vLLM", "compilation_config", {"pass_config": {"x": "/tmp"}}, "no path"),
        ("vLLM", "speculative_config", {"method": "custom_class", "model": "/x"}, "'method': it must be one of ngram"),
        ("vLLM", "speculative_config", {"model": "evil.Class"}, "'model': it must be an absolute path"),
        ("vLLM", "structured_outputs_config", {"reasoning_parser_plugin": "/x.py"}, "'reasoning_parser_plugin'"),
        ("vLLM", "mm_processor_kwargs", {"trust_remote_code": True}, "'trust_remote_code' is not allowed"),
        ("vLLM", "hf_overrides", {"auto_map": {"AutoModel": "/x--y.Z"}}, "no path or address"),
        ("vLLM", "attention_backend", "https://x", "no path or address"),
        ("vLLM", "spec_model", "me/mine", "an absolute path"),
        ("SGLang", "init_expert_location", "/x.pt", "it must be one of trivial"),
        ("SGLang", "json_model_override_args", '{"a": "\\u002fetc"}', "no path or address"),
        ("SGLang", "cuda_graph_config", "@/etc/passwd", "no path or address"),
        ("Transformers", "attn_implementation", "evil/kernel", "no path or address"),
        ("Transformers", "quantization_config", {"a": ["~/x"]}, "no path or address"),
    ],
)
def test_a_value_that_opens_files_or_loads_code_is_refused(engine: str, option: str, value: Any, message: str) -> None:
    problem = refused(engine, {}, **{option: value})
    assert f"--{option}" in problem.cause and message in problem.cause


@pytest.mark.parametrize(
    ("engine", "option", "value"),
    [
        ("vLLM", "cudagraph_capture_sizes", [1, "--middleware", "evil"]),
        ("vLLM", "lora_target_modules", ["q_proj", "--worker-cls=evil"]),
        ("SGLang", "cuda_graph_bs_decode", [1, "--forward-hooks"]),
        ("vLLM", "lora_modules", {"a": "/x", "--middleware": "evil"}),
        ("SGLang", "lora_modules", ["a=/x", "--sidecar=evil"]),
        ("vLLM", "lora_modules", '{"name": "a", "path": "/x", "base_model_name": "="}'),
    ],
)
def test_no_value_becomes_another_option_of_the_command_line(engine: str, option: str, value: Any) -> None:
    assert f"--{option}".replace("modules", "") in refused(engine, {}, **{option: value}).cause.replace("paths", "")


def test_a_negative_number_in_a_list_is_not_an_option() -> None:
    options = {"gc_threshold": [700, -1]}
    assert ENGINES["SGLang"].check_options(options, {}) == options


# -- allowed options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"n_ctx": 512, "n_parallel": 2, "flash_attn": "on", "cache_type_k": "q8_0", "split_mode": "row"},
        {"n_threads": 2, "use_mlock": True, "rope_freq_base": 1e6, "yarn_orig_ctx": 4096, "tensor_split": [0.5, 0.5]},
        {"sampling.top_k": 20, "seed": 7, "antiprompt": ["</s>"], "chat_template": "{{ messages }} a/b"},
        {"mmproj": "/w/mmproj.gguf", "no_mmproj": False, "embedding": True, "pooling": "mean", "cache_ram_mib": 0},
        {"reasoning_format": "none", "enable_reasoning": 1},
    ],
)
def test_llama_cpp_accepts_options_that_change_how_a_model_computes(
    described: dict[str, str], options: dict[str, Any]
) -> None:
    assert LlamaCpp().check_options(options, described)


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("vLLM", {"speculative_config": {"method": "eagle3", "model": "/weights/draft", "num_speculative_tokens": 3}}),
        (
            "vLLM",
            {"compilation_config": {"mode": 3, "cudagraph_mode": "FULL", "pass_config": {"fuse_act_quant": True}}},
        ),
        ("vLLM", {"compilation_config": "3", "limit_mm_per_prompt": {"image": 2}, "cudagraph_capture_sizes": [1, 2]}),
        (
            "vLLM",
            {"hf_overrides": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "load_format": "safetensors"},
        ),
        ("vLLM", {"default_chat_template_kwargs": {"system": "see http://a/b"}, "chat_template": "a/b {{ messages }}"}),
        ("vLLM", {"reasoning_config": {"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}}),
        ("vLLM", {"override_generation_config": {"temperature": 0.5}, "generation_config": "vllm"}),
        ("SGLang", {"chat_template": "chatml", "cuda_graph_config": '{"decode": {"backend": "full"}}'}),
        ("SGLang", {"speculative_algorithm": "EAGLE", "speculative_draft_model_path": "/weights/draft"}),
        ("SGLang", {"json_model_override_args": '{"rope_scaling": {"factor": 4.0}}', "quantization": "fp8"}),
        ("Transformers", {"chat_template": "{{ a }}/b", "quantization_config": {"load_in_4bit": True}}),
    ],
)
def test_an_engine_accepts_options_that_change_how_a_model_computes(engine: str, options: dict[str, Any]) -> None:
    assert ENGINES[engine].check_options(options, {}) == options


def test_vllm_reads_a_registered_template_as_text_even_if_it_is_a_path() -> None:
    version = plan_of().version
    family = msgspec.structs.replace(version.family, chat_template="/etc/passwd")
    plan = sized(launch_of(version=msgspec.structs.replace(version, family=family)))
    command = ENGINES["vLLM"].command(plan, "k", Placement(PYTHON))
    assert value_of(command.argv, "--chat-template") == "{{ '' }}/etc/passwd"


def test_sglang_reads_the_text_of_a_template_from_a_file() -> None:
    plan = plan_of(options=ENGINES["SGLang"].check_options({"chat_template": "{{ messages }}"}, {}))
    command = ENGINES["SGLang"].command(plan, "k", Placement(PYTHON))
    assert command.env["XINFERENCE_CHAT_TEMPLATE"] == "{{ messages }}" and "--chat-template" not in command.argv
    named = plan_of(options={"chat_template": "chatml"})
    command = ENGINES["SGLang"].command(named, "k", Placement(PYTHON))
    assert value_of(command.argv, "--chat-template") == "chatml" and "XINFERENCE_CHAT_TEMPLATE" not in command.env
