"""A launch that says whether its model thinks, in each engine's words."""

from __future__ import annotations

import pytest

from xinference.catalog.models import ModelVersion
from xinference.catalog.registry import builtin_families
from xinference.engines.options.thinking import with_thinking
from xinference.errors import Problem
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest


def version_of(name: str) -> ModelVersion:
    return match(builtin_families(), LaunchRequest(model_name=name))


@pytest.mark.parametrize(
    ("engine", "option", "value"),
    [
        ("llama.cpp", "default_template_kwargs", "false"),
        ("vLLM", "default_chat_template_kwargs", False),
        ("SGLang", "default_chat_template_kwargs", False),
    ],
)
def test_a_hybrid_model_is_told_by_its_engines_own_option(engine: str, option: str, value: object) -> None:
    options, reasons = with_thinking(engine, version_of("qwen3"), False, {"n": 1})
    assert options == {"n": 1, option: {"enable_thinking": value}}
    assert reasons == ("thinking: False",)


def test_what_was_given_by_the_option_itself_wins() -> None:
    given = {"default_chat_template_kwargs": {"enable_thinking": True, "more": 1}}
    assert with_thinking("vLLM", version_of("qwen3"), False, given)[0] == given


def test_nothing_said_changes_nothing_and_a_model_without_the_switch_says_so() -> None:
    assert with_thinking("llama.cpp", version_of("qwen3"), None, {}) == ({}, ())
    options, (reason,) = with_thinking("llama.cpp", version_of("llama-2-chat"), True, {})
    assert options == {} and "llama-2-chat" in reason


def test_an_engine_without_a_word_for_it_refuses_with_the_way_out() -> None:
    with pytest.raises(Problem, match='"enable_thinking": false'):
        with_thinking("Transformers", version_of("qwen3"), False, {})
