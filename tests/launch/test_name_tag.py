"""A name with a tag, as people paste it from Ollama."""

from __future__ import annotations

import re
from typing import Any

import pytest

from xinference.catalog.registry import builtin_families
from xinference.errors import Problem
from xinference.launch.match import match
from xinference.launch.name_tag import without_tag
from xinference.launch.request import LaunchRequest


def request_of(name: str, **fields: Any) -> LaunchRequest:
    return without_tag(LaunchRequest(model_name=name, **fields), builtin_families())


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("smollm2-instruct:Q8_0", "smollm2-instruct--0_135B--ggufv2--Q8_0"),
        ("smollm2-instruct:135m", "smollm2-instruct--0_135B--ggufv2--Q4_1"),
        ("qwen2.5-instruct:1.5b", "qwen2.5-instruct--1_5B--ggufv2--q4_k_m"),
        ("Qwen2.5-Instruct:7b-instruct-q8_0", "qwen2.5-instruct--7B--ggufv2--Q8_0"),
        ("qwen3:30b-a3b", "qwen3--30B--ggufv2--Q4_K_M"),
        ("qwen3:30b-a3b-q8_0", "qwen3--30B--ggufv2--Q8_0"),
        ("qwen2.5-instruct:latest", "qwen2.5-instruct--0_5B--ggufv2--q4_k_m"),
        ("https://ollama.com/library/qwen2.5-instruct:3b", "qwen2.5-instruct--3B--ggufv2--q4_k_m"),
        ("ollama.com/library/qwen2.5-instruct", "qwen2.5-instruct--0_5B--ggufv2--q4_k_m"),
    ],
)
def test_a_tag_is_the_size_and_the_quantization(name: str, version: str) -> None:
    assert match(builtin_families(), request_of(name)).version_id == version


def test_a_flag_is_stronger_than_the_tag() -> None:
    request = request_of("qwen2.5-instruct:7b-q8_0", model_size_in_billions="3B", quantization="q2_k")
    assert (request.model_size_in_billions, request.quantization) == ("3B", "q2_k")


def test_a_name_with_a_colon_that_is_known_stays_as_it_is() -> None:
    assert without_tag(LaunchRequest(model_name="mine:7b"), ["mine", "mine:7b"]).model_name == "mine:7b"


@pytest.mark.parametrize("name", ["org/name:Q4_K_M", "/models/a:b.gguf", "C:\\models\\a.gguf", "nothing:7b", "a:b:c"])
def test_other_names_with_a_colon_stay_as_they_are(name: str) -> None:
    assert request_of(name).model_name == name


@pytest.mark.parametrize(
    ("name", "cause", "hint"),
    [
        ("llama3.2:1b", "There is no model named 'llama3.2:1b'.", "Did you mean llama-3.2-instruct:1b"),
        ("https://ollama.com/library/llama3.2", "There is no model named 'llama3.2'.", "Did you mean llama-3.2"),
        ("smollm2-instruct:7b", "smollm2-instruct has no size 7B.", "It has: 0.135B, 0.36B, 1.7B."),
        ("smollm2-instruct:Q7_X", "smollm2-instruct has no quantization Q7_X.", "It has: Q4_1"),
        ("deepseek-r1:7b", "deepseek-r1 has no size 7B.", "It has: 671B. deepseek-r1-distill-qwen has it."),
    ],
)
def test_a_refused_tag_names_what_there_is(name: str, cause: str, hint: str) -> None:
    with pytest.raises(Problem) as caught:
        match(builtin_families(), request_of(name))
    assert caught.value.cause == cause
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize("name", ["mistral:7b-instruct-v0.2-q4_0", "llama3.2:1b-instruct-fp16", "llama3.1:8b-q4_K_M"])
def test_a_name_that_is_suggested_can_be_used(name: str) -> None:
    with pytest.raises(Problem) as caught:
        match(builtin_families(), request_of(name))
    suggested = re.findall(r"[^ ,]+:[^ ,?]+", caught.value.hint or "")
    assert suggested
    for each in suggested:
        match(builtin_families(), request_of(each))


def test_safetensors_is_the_format_pytorch() -> None:
    request = LaunchRequest(model_name="qwen2.5-instruct", model_format="safetensors")
    assert match(builtin_families(), request).version_id == "qwen2.5-instruct--0_5B--pytorch--none"
