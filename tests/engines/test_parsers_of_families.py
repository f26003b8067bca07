"""Which parser reads the tool calls and the reasoning of each built-in family on each engine, and what is said else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.engines.plans import launch_of, plan_of
from tests.support.cases import in_one_test
from xinference.catalog.models import ModelFamily
from xinference.catalog.registry import builtin_families
from xinference.engines.registry import all_engines
from xinference.engines.sglang.parsers import PARSERS as SGLANG
from xinference.engines.transformers.engine import TOOL_FORMS
from xinference.engines.vllm.parsers import PARSERS as VLLM

ENGINES = all_engines()
FAMILIES = [family for family in builtin_families().values() if family.model_type == "LLM"]
#: Families that call tools, whose form no parser of vLLM or SGLang reads.
UNREAD_VLLM = {
    "glm4-0414", "glm-4.1v-thinking", "glm4-chat", "glm4-chat-1m", "smollm2-instruct", "Spark-X2.5",
    "phi-4-mini-instruct",
}  # fmt: skip
UNREAD_SGLANG = UNREAD_VLLM - {"Spark-X2.5"} | {
    "granite-3.3-instruct", "internlm3-instruct", "phi-4-mini-instruct", "seed-oss",
}  # fmt: skip


def calling() -> list[ModelFamily]:
    return [family for family in FAMILIES if "tools" in family.model_ability]


def test_the_families_without_a_parser_are_those_whose_form_the_engine_does_not_have() -> None:
    assert {family.model_name for family in calling() if VLLM.tool_parser(family) is None} == UNREAD_VLLM
    assert {family.model_name for family in calling() if SGLANG.tool_parser(family) is None} == UNREAD_SGLANG


@in_one_test(
    ("name", "vllm", "sglang"),
    [
        ("qwen2.5-instruct", ("hermes", None), ("qwen25", None)),
        ("qwen3", ("hermes", "qwen3"), ("qwen25", "qwen3")),
        ("Qwen3-Thinking", ("hermes", "qwen3"), ("qwen25", "qwen3-thinking")),
        ("Qwen3-Coder", ("qwen3_coder", None), ("qwen3_coder", None)),
        ("qwen3.8", ("qwen3_xml", "qwen3"), ("qwen3_coder", "qwen3")),
        ("llama-3.1-instruct", ("llama3_json", None), ("llama3", None)),
        ("mistral-nemo-instruct", ("mistral", None), ("mistral", None)),
        ("gpt-oss", ("openai", "openai_gptoss"), ("gpt-oss", "gpt-oss")),
        ("seed-oss", ("seed_oss", "seed_oss"), (None, None)),
        ("granite-3.3-instruct", ("granite", None), (None, None)),
        ("GLM-4.7", ("glm47", "glm47"), ("glm47", "glm45")),
        ("Deepseek-V3.1", ("deepseek_v31", "deepseek_v3"), ("deepseekv31", "deepseek-v3")),
        ("DeepSeek-V4.1-Flash", ("deepseek_v41", "deepseek_v41"), ("deepseekv41", "deepseek-v41")),
        ("deepseek-r1-0528", ("deepseek_v3", "deepseek_r1"), ("deepseekv3", "deepseek-r1")),
        ("MiniMax-M3", ("minimax_m3", "minimax_m3"), ("minimax-m3", "minimax-m3")),
        ("Kimi-K3", ("kimi_k3", "kimi_k3"), ("kimi_k3", "kimi_k3")),
        ("gemma-4", ("gemma4", "gemma4"), ("gemma4", "gemma4")),
        ("Spark-X2.5", (None, "qwen3"), ("spark25", "qwen3")),
        ("DianJin-R1", ("hermes", None), ("qwen25", None)),
        ("llama-2-chat", (None, None), (None, None)),
    ],
)
def test_a_family_gets_the_parsers_of_its_own_forms(
    name: str, vllm: tuple[str | None, str | None], sglang: tuple[str | None, str | None]
) -> None:
    family = builtin_families()[name]
    assert (VLLM.tool_parser(family), VLLM.reasoning_parser(family)) == vllm
    assert (SGLANG.tool_parser(family), SGLANG.reasoning_parser(family)) == sglang


@pytest.mark.parametrize("engine", ENGINES)
def test_a_family_that_calls_no_tools_refuses_them_and_says_what_can_be_done(engine: str) -> None:
    refusal = ENGINES[engine].tool_refusal(launch_of("llama-2-chat", engine=engine))
    assert refusal is not None and "llama-2-chat" in refusal


@in_one_test("family", calling(), ids=lambda family: family.model_name)
def test_tools_are_read_or_refused_and_never_misread(family: ModelFamily) -> None:
    for engine, parsers in (("vLLM", VLLM), ("SGLang", SGLANG)):
        unread = parsers.tool_parser(family) is None
        assert (parsers.tool_refusal(family, {}) is not None) == unread
        assert bool([reason for reason in parsers.reasons(family, {}) if reason.startswith("tools: ")]) == unread
        assert parsers.tool_refusal(family, {"tool_call_parser": "hermes"}) is None, engine
    hermes = VLLM.tool_parser(family) == "hermes"
    assert hermes == (family.tool_parser in TOOL_FORMS)


@pytest.mark.parametrize("parsers", [VLLM, SGLANG], ids=lambda parsers: parsers.engine)
def test_every_name_in_the_tables_is_one_of_the_engine(parsers: object) -> None:
    assert isinstance(parsers, type(VLLM))
    assert set(parsers.aliases.values()) | {parsers.schema_parser} <= parsers.known_tools
    named = {*parsers.reasoning.values(), *parsers.reasoning_of_form.values(), *parsers.reasoning_of_tags.values()}
    assert named | {parsers.tagged, parsers.tagged_hybrid} <= parsers.known_reasoning


TAGS = ("<think>", "</think>")


@in_one_test(
    ("changes", "tools", "reasoning"),
    [
        ({"tool_parser": "mistral"}, ("mistral", "mistral"), (None, None)),
        ({"tool_parser": "qwen"}, ("hermes", "qwen25"), (None, None)),
        ({"tool_parser": "llama3"}, ("llama3_json", "llama3"), (None, None)),
        ({"tool_parser": "unheard-of"}, (None, None), (None, None)),
        (
            {"model_ability": ("chat", "reasoning"), "reasoning_tags": TAGS},
            (None, None),
            ("deepseek_r1", "deepseek-r1"),
        ),
        (
            {"model_ability": ("chat", "hybrid", "reasoning"), "reasoning_tags": TAGS},
            (None, None),
            ("qwen3", "qwen3"),
        ),
        ({"model_ability": ("chat", "reasoning"), "reasoning_tags": ("[", "]")}, (None, None), (None, None)),
        ({"model_ability": ("chat",), "reasoning_tags": TAGS}, (None, None), (None, None)),
    ],
)
def test_a_registered_model_names_its_parsers_itself(
    changes: dict[str, Any], tools: tuple[str | None, ...], reasoning: tuple[str | None, ...]
) -> None:
    """`tools` and `reasoning`: the parsers of vLLM and of SGLang."""
    family = msgspec.structs.replace(plan_of().version.family, **changes)
    both = (VLLM, SGLANG)
    assert tuple(parsers.tool_parser(family) for parsers in both) == tools
    assert tuple(parsers.reasoning_parser(family) for parsers in both) == reasoning
    for parsers in both:
        assert set(parsers.aliases.values()) | {parsers.schema_parser} <= parsers.known_tools
