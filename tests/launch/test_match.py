from __future__ import annotations

from typing import Any

import pytest

from tests.support.cases import check_each, in_one_test
from xinference.catalog.models import ModelFamily, ModelVersion, same_size
from xinference.catalog.registry import builtin_families
from xinference.errors import Problem, near
from xinference.launch.match import FORMATS, match, matches, versions_in_order
from xinference.launch.quantization_order import nearest_first
from xinference.launch.request import LaunchRequest


def choose(name: str, **wanted: Any) -> ModelVersion:
    return match(builtin_families(), LaunchRequest(model_name=name, **wanted))


def refusal(name: str, **wanted: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        choose(name, **wanted)
    assert (caught.value.code, caught.value.status) == ("unknown_model", 400)
    return caught.value


def test_every_quantization_of_every_spec_resolves_to_itself() -> None:
    def check(family: ModelFamily) -> None:
        for spec in family.model_specs:
            for quantization in spec.quantizations:
                found = choose(
                    family.model_name,
                    model_size_in_billions=spec.model_size_in_billions,
                    model_format=spec.model_format,
                    quantization=quantization,
                )
                assert (found.spec, found.quantization) == (spec, quantization)

    check_each(builtin_families().values(), check, lambda family: family.model_name)


@pytest.mark.parametrize("name", ["LLAMA-2-CHAT", " Llama-2-Chat ", "llama-2-chat"])
def test_a_name_is_found_whatever_its_case(name: str) -> None:
    assert choose(name).family.model_name == "llama-2-chat"


def test_a_family_registered_with_capitals_is_found_in_lower_case() -> None:
    assert choose("qwen3-instruct").family.model_name == "Qwen3-Instruct"


def test_a_quantization_is_found_whatever_its_case_and_named_as_registered() -> None:
    found = choose("llama-2-chat", model_size_in_billions=7, model_format="ggufv2", quantization="q4_k_m")
    assert found.quantization == "Q4_K_M"


def test_without_a_format_todays_is_taken_in_the_usual_quantization() -> None:
    assert choose("llama-2-chat").version_id == "llama-2-chat--7B--ggufv2--Q4_K_M"
    assert choose("llama-2-chat", model_size_in_billions=70).version_id == "llama-2-chat--70B--ggufv2--Q4_K_M"


def test_a_spec_of_one_quantization_is_taken_in_the_order_of_the_registry() -> None:
    assert choose("smollm2-instruct").version_id == "smollm2-instruct--0_135B--ggufv2--Q4_1"


def test_the_first_choice_is_the_smallest_size_in_the_first_format_and_the_nearest_quantization() -> None:
    def check(family: ModelFamily) -> None:
        found, *others = matches(builtin_families(), LaunchRequest(model_name=family.model_name))
        sizes = {float(version.size.replace("_", ".")) for version in [found, *others]}
        assert float(found.size.replace("_", ".")) == min(sizes)
        formats = {version.spec.model_format for version in [found, *others] if version.size == found.size}
        assert found.spec.model_format == min(formats, key=FORMATS.index)
        if family.model_type == "LLM" and any(q.lower() == "q4_k_m" for q in found.spec.quantizations):
            assert found.quantization.lower() == "q4_k_m"

    check_each(builtin_families().values(), check, lambda family: family.model_name)


def test_an_embedding_model_keeps_the_quantization_of_the_registry() -> None:
    assert choose("bge-small-en-v1.5").quantization == "f16"
    assert choose("bge-m3").quantization == "F16"


@pytest.mark.parametrize(
    ("name", "quantization"),
    [("Qwen3-Reranker-0.6B", "Q8_0"), ("bge-reranker-v2-m3", "Q8_0"), ("Qwen3-Reranker-4B", "Q4_K_M")],
)
def test_a_reranker_has_8_bits_if_it_is_small_and_the_usual_quantization_otherwise(
    name: str, quantization: str
) -> None:
    assert choose(name).quantization == quantization


def test_no_pooled_model_is_launched_with_less_than_4_bits_where_there_are_more() -> None:
    def check(family: ModelFamily) -> None:
        for version in versions_in_order(family):
            of_kind = [
                each
                for each in versions_in_order(family)
                if (each.size, each.spec.model_format) == (version.size, version.spec.model_format)
            ]
            assert not of_kind[0].quantization.lower().startswith(("q2", "q3", "iq2", "iq3"))

    pooled = [family for family in builtin_families().values() if family.model_type != "LLM"]
    check_each(pooled, check, lambda family: family.model_name)


def test_the_nearest_quantization_has_4_bits_or_the_next_higher_number() -> None:
    names = ["F16", "Q2_K", "Q8_0", "IQ4_XS", "Q4_0", "Q6_K", "Q5_K_M", "Q3_K_M", "Q4_K_S", "q4_k_m"]
    assert nearest_first(names, "ggufv2") == [
        *("q4_k_m", "Q4_K_S", "Q4_0", "IQ4_XS", "Q5_K_M", "Q6_K", "Q3_K_M", "Q8_0", "Q2_K", "F16")
    ]
    assert nearest_first(["Int8", "Int4"], "gptq") == ["Int4", "Int8"]


def test_without_a_quantization_none_is_taken_where_there_is_one() -> None:
    assert choose("llama-2-chat", model_format="pytorch").quantization == "none"


@pytest.mark.parametrize("written", ["Q4_K_M", "q4_k_m", "q4_K_M", "q4-k-m"])
def test_a_quantization_alone_finds_it_in_todays_format(written: str) -> None:
    found = choose("llama-2-chat", quantization=written)
    assert found.version_id == "llama-2-chat--7B--ggufv2--Q4_K_M"


def test_a_quantization_alone_finds_the_smallest_size_that_has_it() -> None:
    assert choose("smollm2-instruct", quantization="Q4_0").size == "0_36"


def test_a_quantization_alone_finds_the_first_spec_that_has_it() -> None:
    found = choose("llama-2-chat", quantization="Int4")
    assert (found.spec.model_format, found.size) == ("gptq", "7")


@pytest.mark.parametrize(
    ("name", "model_type"),
    [
        ("smollm2-instruct", "embedding"),
        ("qwen2.5-instruct", "Rerank"),
        ("bge-m3", "rerank"),
        ("llama-2-chat", "image"),
    ],
)
def test_a_type_that_the_family_does_not_have_is_refused(name: str, model_type: str) -> None:
    refused = refusal(name, model_type=model_type)
    assert f"{name} is a model of the type" in refused.cause and f"not {model_type}" in refused.cause


@pytest.mark.parametrize("model_type", ["LLM", "llm", "embedding", " Embedding "])
def test_the_type_of_the_family_and_the_default_find_it(model_type: str) -> None:
    assert choose("bge-m3", model_type=model_type).family.model_type == "embedding"


@pytest.mark.parametrize(("alias", "meant"), [("gguf", "ggufv2"), ("GGUF", "ggufv2"), ("ggml", "ggmlv3")])
def test_a_format_is_found_by_its_short_name(alias: str, meant: str) -> None:
    assert choose("llama-2-chat", model_format=alias).spec.model_format == meant


@in_one_test("size", ["0_5", "0.5", 0.5, "0.5B", "0.5b", "0_5B", "500M"])
def test_a_size_is_found_however_its_fraction_is_written(size: Any) -> None:
    assert choose("qwen2.5-instruct", model_size_in_billions=size).size == "0_5"


@in_one_test(
    ("left", "right", "same"),
    [
        (7, "7", True),
        ("1_8", "1.8", True),
        ("1_8", 18, False),
        ("7b", "7b", True),
        ("7b", 7, True),
        ("135M", 0.135, True),
        ("x", 7, False),
    ],
)
def test_sizes_are_compared_by_value(left: int | str, right: int | str, same: bool) -> None:
    assert same_size(left, right) is same


def test_a_misspelt_name_is_answered_with_near_ones() -> None:
    problem = refusal("llama-2-chatt")
    assert "'llama-2-chatt'" in problem.cause
    assert "llama-2-chat" in str(problem.hint)


def test_a_name_like_no_other_is_answered_with_the_command_that_lists_all() -> None:
    hint = str(refusal("zzzzzzzz").hint)
    assert "`xinference registrations`" in hint and len(hint) < 160


def test_an_unknown_size_is_answered_with_those_there_are() -> None:
    problem = refusal("llama-2-chat", model_size_in_billions=8)
    assert problem.cause == "llama-2-chat has no size 8B."
    assert problem.hint == "It has: 7B, 13B, 70B."


def test_an_unknown_format_is_answered_for_the_size() -> None:
    problem = refusal("llama-3.2-instruct", model_size_in_billions=3, model_format="ggmlv3")
    assert problem.cause == "llama-3.2-instruct 3B has no format ggmlv3."


def test_an_unknown_quantization_is_answered_with_near_ones() -> None:
    problem = refusal("llama-2-chat", model_size_in_billions=7, model_format="ggmlv3", quantization="Q4_K")
    assert problem.cause == "llama-2-chat 7B ggmlv3 has no quantization Q4_K."
    assert "q4_K_M" in str(problem.hint) and "q4_K_S" in str(problem.hint)


@pytest.mark.parametrize(
    ("wanted", "elsewhere"),
    [
        ({"model_format": "pytorch", "quantization": "Q4_K_M"}, "The format ggufv2 has it."),
        ({"model_size_in_billions": 405, "quantization": "Q8_0"}, "The sizes 8B and 70B have it."),
        ({"model_size_in_billions": 405, "model_format": "ggufv2"}, "The sizes 8B and 70B have it."),
    ],
)
def test_a_refusal_names_where_the_value_is(wanted: dict[str, Any], elsewhere: str) -> None:
    assert str(refusal("llama-3.1-instruct", **wanted).hint).endswith(elsewhere)


def test_near_puts_what_starts_alike_first_and_names_few() -> None:
    assert near("q4_k", ["q8_0", "q4_K_M", "q4_K_S"])[:2] == ["q4_K_M", "q4_K_S"]
    assert near("zzz", ["q8_0"]) == []
    assert len(near("a", [f"a{i}" for i in range(9)])) == 5


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ("llama3", "llama-3-instruct"),
        ("llama3:8b", "llama-3-instruct"),
        ("Llama-3.2", "llama-3.2-instruct"),
        ("qwen25", "qwen2.5-instruct"),
        ("qwen2.5:7b", "qwen2.5-instruct"),
    ],
)
def test_a_near_name_begins_alike(wanted: str, first: str) -> None:
    names = ["llama-2", "smollm3", "llama-3-instruct", "llama-3.2-instruct", "qwen2.5-instruct", "qwen3"]
    assert near(wanted, names)[0] == first
