"""What a model's files say becomes a family; what they don't say is asked for by its flag."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.catalog.models import ModelFamily, Source
from xinference.engines.registry import all_engines
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest
from xinference.weights.family import DerivedFamily, billions, derive_family, valid_name
from xinference.weights.model_facts import ModelFacts

SOURCE = Source(hub="huggingface", model_id="o/r")
CHAT = "{% for m in messages %}{{ m.content }}{% endfor %}"
LLM = ModelFacts(
    model_format="pytorch",
    architecture="LlamaForCausalLM",
    quantization="none",
    context_length=4096,
    chat_template=CHAT,
    parameters=134_515_008,
    generates=True,
    stop_token_ids=(2,),
)


def derived(facts: ModelFacts, name: str = "r", **asked: Any) -> DerivedFamily:
    request = LaunchRequest(model_name="o/r", **asked)
    return derive_family(facts, name, "o/r", SOURCE, (facts.quantization,), request)


def family(facts: ModelFacts, name: str = "r", **asked: Any) -> ModelFamily:
    return derived(facts, name, **asked).family


def test_a_chat_model_is_described_by_its_files_with_a_reason_for_each_fact() -> None:
    found = derived(LLM)
    assert (found.family.model_type, found.family.model_ability) == ("LLM", ("chat",))
    assert (found.family.context_length, found.family.stop_token_ids) == (4096, (2,))
    assert found.family.model_specs[0].model_size_in_billions == "0_135"
    for word in ("type LLM", "context 4096", "abilities chat", "stop tokens 2", "size 0.135B"):
        assert any(reason.startswith(word) for reason in found.reasons)


@in_one_test(
    ("template", "abilities", "parser"),
    [
        (None, ("generate",), None),
        (CHAT, ("chat",), None),
        (CHAT + "{% if tools %}{{ tools }}{% endif %}", ("chat", "tools"), None),
        (CHAT + "{% if tools %}<tool_call>{% endif %}", ("chat", "tools"), "hermes"),
        (CHAT + "{% if tools %}<|python_tag|>{% endif %}", ("chat", "tools"), "llama3_json"),
        (CHAT + "{% if tools %}[TOOL_CALLS]{% endif %}", ("chat", "tools"), "mistral"),
        (CHAT + "<think>", ("chat", "reasoning"), None),
        (CHAT + "{% if enable_thinking %}<think>{% endif %}", ("chat", "reasoning", "hybrid"), None),
        ("<tool_call>" + CHAT, ("chat",), None),
    ],
)
def test_abilities_and_the_parser_are_what_the_template_shows(
    template: str | None, abilities: tuple[str, ...], parser: str | None
) -> None:
    found = family(replace(LLM, chat_template=template))
    assert (found.model_ability, found.tool_parser) == (abilities, parser)
    assert (found.reasoning_tags is not None) == ("hybrid" in abilities)


def test_the_class_of_a_folder_is_kept_so_that_engines_can_refuse_it_before_a_download() -> None:
    mistral = replace(LLM, architecture="Mistral3ForConditionalGeneration")
    assert family(mistral).architectures == ("Mistral3ForConditionalGeneration",)
    assert not all_engines()["Transformers"].reads(family(mistral))
    assert family(replace(LLM, model_format="ggufv2", architecture="llama")).architectures == ()


def test_a_model_with_a_vision_config_sees() -> None:
    assert family(replace(LLM, vision=True)).model_ability == ("chat", "vision")


@pytest.mark.parametrize(
    ("facts", "asked", "model_type"),
    [
        (replace(LLM, embeds=True, generates=False), {}, "embedding"),
        (replace(LLM, reranks=True, generates=False), {}, "rerank"),
        (LLM, {"model_type": "embedding"}, "embedding"),
        (replace(LLM, generates=False), {"model_type": "rerank"}, "rerank"),
    ],
)
def test_the_type_follows_from_the_architecture_or_is_the_one_asked_for(
    facts: ModelFacts, asked: dict[str, Any], model_type: str
) -> None:
    found = family(facts, **asked)
    assert found.model_type == model_type and found.stop_token_ids == ()


@in_one_test(
    ("name", "facts", "asked", "size"),
    [
        ("Some-7B-Chat", LLM, {}, 7),
        ("Some-1.7b", LLM, {}, "1_7"),
        ("SmolLM2-135M-Instruct", LLM, {}, "0_135"),
        ("Mix-8x7B", replace(LLM, parameters=46_700_000_000), {}, 47),
        ("r", replace(LLM, size_label="360M"), {}, "0_36"),
        ("Some-7B", LLM, {"model_size_in_billions": 8}, 8),
    ],
)
def test_the_size_is_the_asked_one_or_by_the_name_or_by_the_weights(
    name: str, facts: ModelFacts, asked: dict[str, Any], size: int | str
) -> None:
    assert family(facts, name, **asked).model_specs[0].model_size_in_billions == size


@pytest.mark.parametrize(
    ("facts", "code", "flag"),
    [
        (replace(LLM, context_length=None), "context_length_needed", "--n_ctx"),
        (replace(LLM, generates=False), "model_type_needed", "--model-type"),
        (replace(LLM, parameters=None), "size_needed", "--size-in-billions"),
        (replace(LLM, remote_code=True), "remote_code", "--trust_remote_code true"),
        (replace(LLM, quantization="hqq"), "engine_unsupported", "as trained"),
    ],
)
def test_what_the_files_do_not_say_is_asked_for_by_the_flag_that_says_it(
    facts: ModelFacts, code: str, flag: str
) -> None:
    with pytest.raises(Problem) as caught:
        derived(facts)
    assert (caught.value.code, caught.value.status) == (code, 400) and flag in str(caught.value.hint)


def test_the_flags_that_are_asked_for_are_enough() -> None:
    unsaid = replace(LLM, context_length=None, remote_code=True, parameters=None)
    options = {"max_model_len": 512, "trust_remote_code": False}
    assert family(unsaid, model_size_in_billions=3, options=options).context_length == 512


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SmolLM2 135M", "SmolLM2-135M"),
        ("..", "model"),
        ("a?b#c", "a-b-c"),
        ("Qwen3", "Qwen3-custom"),
        ("é" * 90, "é" * 50),
    ],
)
def test_a_name_is_made_that_models_may_have_and_none_has(text: str, name: str) -> None:
    assert valid_name(text, ["qwen3"]) == name


@pytest.mark.parametrize(("count", "written"), [(1, "0_001"), (7e9, 7), (70.2e9, 70), (999e6, "0_999"), (1e9, 1)])
def test_sizes_are_written_as_registries_write_them(count: float, written: int | str) -> None:
    assert billions(count) == written
