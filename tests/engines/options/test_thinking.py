"""A launch that says whether its model thinks, in each engine's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from xinference.catalog.models import ModelVersion
from xinference.catalog.registry import builtin_families
from xinference.engines.options.thinking import with_thinking
from xinference.engines.registry import all_engines
from xinference.errors import Problem
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest


def version_of(name: str) -> ModelVersion:
    return match(builtin_families(), LaunchRequest(model_name=name))


def completed(
    engine: str, model: str, wanted: bool | None, options: Mapping[str, Any]
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    request = LaunchRequest(model_name=model, enable_thinking=wanted)
    return all_engines()[engine].complete_options(version_of(model), request, options)


@pytest.mark.parametrize(
    ("engine", "option", "value"),
    [
        ("llama.cpp", "default_template_kwargs", "false"),
        ("vLLM", "default_chat_template_kwargs", False),
        ("SGLang", "default_chat_template_kwargs", False),
        ("Transformers", "default_chat_template_kwargs", False),
    ],
)
def test_a_hybrid_model_is_told_by_its_engines_own_option(engine: str, option: str, value: object) -> None:
    options, reasons = completed(engine, "qwen3", False, {"n": 1})
    assert options == {"n": 1, option: {"enable_thinking": value}}
    assert reasons == ("thinking: False",)


def test_what_was_given_by_the_option_itself_wins() -> None:
    given = {"default_chat_template_kwargs": {"enable_thinking": True, "more": 1}}
    assert completed("vLLM", "qwen3", False, given)[0] == given


def test_nothing_said_changes_nothing_and_a_model_without_the_switch_says_so() -> None:
    assert completed("llama.cpp", "qwen3", None, {}) == ({}, ())
    options, (reason,) = completed("llama.cpp", "llama-2-chat", True, {})
    assert options == {} and "llama-2-chat" in reason


def test_an_engine_without_a_word_for_it_refuses_with_the_way_out() -> None:
    with pytest.raises(Problem, match='"enable_thinking": false'):
        with_thinking("another engine", None, version_of("qwen3"), False, {})
