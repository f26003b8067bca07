"""Both generations of a user's JSON: what is read, and that a bad one names the field."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.catalog.custom import EMBEDDING_1, EMBEDDING_2, RERANK, VERSION_1, VERSION_2, Json, changed
from tests.support.cases import in_one_test
from tests.support.examples import examples
from xinference.catalog.models import ModelFamily, ModelType
from xinference.catalog.registrations import read_registration
from xinference.catalog.registry import builtin_families
from xinference.errors import Problem


def read(document: object, model_type: ModelType = "LLM") -> ModelFamily:
    return read_registration(model_type, json.dumps(document), builtin_families()).family


def test_version_1_is_read_with_its_lists_of_quantizations_and_its_prompt_style() -> None:
    family = read(VERSION_1)
    gguf, pytorch = family.model_specs
    assert (family.model_name, family.context_length, family.model_ability) == ("my-llama", 2048, ("chat",))
    assert gguf.quantizations == ("q4_0", "q8_0")
    assert gguf.sources[0].file_name("q4_0") == "my-llama.q4_0.gguf"
    assert gguf.sources[0].parts == {"q8_0": ("my-llama.q8_0-00001-of-00002.gguf", "my-llama.q8_0-00002-of-00002.gguf")}
    assert (gguf.sources[0].hub, gguf.sources[0].revision) == ("huggingface", "0123abcd")
    assert (pytorch.sources[0].hub, pytorch.model_size_in_billions) == ("modelscope", "1_8")
    assert "'USER: '" in str(family.chat_template)
    assert (family.stop, family.stop_token_ids) == (("USER:",), (2,))


def test_version_2_is_read_with_its_single_quantizations_its_hubs_and_its_template() -> None:
    family = read(VERSION_2)
    assert [(s.model_format, s.quantizations) for s in family.model_specs] == [
        ("pytorch", ("none",)),
        ("gptq", ("Int4",)),
        ("gptq", ("Int8",)),
        ("ggufv2", ("Q8_0",)),
    ]
    four = family.model_specs[1]
    assert [(s.hub, s.model_id) for s in four.sources] == [
        ("huggingface", "me/qwen-GPTQ-Int4"),
        ("modelscope", "us/qwen-GPTQ-Int4"),
    ]
    local = family.model_specs[3].sources[0]
    assert (local.hub, local.model_id) == ("local", "/models/qwen.Q8_0.gguf")
    assert (family.chat_template, family.stop_token_ids) == (VERSION_2["chat_template"], (151645,))
    assert (family.tool_parser, family.reasoning_tags) == ("qwen", ("<think>", "</think>"))


def test_embedding_models_and_rerankers_of_both_generations_are_read() -> None:
    old, new, reranker = read(EMBEDDING_1, "embedding"), read(EMBEDDING_2, "embedding"), read(RERANK, "rerank")
    assert (old.model_type, old.context_length, old.model_lang) == ("embedding", 512, ("zh",))
    assert old.model_specs[0].sources[0].model_id == "/models/bge"
    assert [s.model_format for s in new.model_specs] == ["ggufv2", "pytorch"]
    assert (reranker.model_type, reranker.model_ability) == ("rerank", ("rerank",))


def test_the_document_can_be_read_back_as_it_was_given() -> None:
    kept = read_registration("LLM", json.dumps(VERSION_1), builtin_families()).document
    assert kept["prompt_style"] == VERSION_1["prompt_style"] and kept["version"] == 1


def test_a_file_of_xinference_itself_with_one_model_in_a_list_is_read() -> None:
    assert read([VERSION_2]).model_name == "my-qwen"


def test_two_specs_that_differ_in_their_hub_only_are_one_with_two_hubs() -> None:
    both = copy.deepcopy(VERSION_1["model_specs"][1]) | {"model_hub": "huggingface", "quantizations": ["none"]}
    family = read(changed(VERSION_1, {"model_specs": [*VERSION_1["model_specs"], both]}))
    assert len(family.model_specs) == 2
    assert [(s.hub, s.quantizations) for s in family.model_specs[1].sources] == [
        ("modelscope", None),
        ("huggingface", ("none",)),
    ]


def test_a_format_that_nothing_runs_is_left_out_with_a_note_if_others_remain() -> None:
    mlx = {"model_format": "mlx", "model_size_in_billions": 7, "quantizations": ["4bit"], "model_id": "me/mlx"}
    document = changed(VERSION_1, {"model_specs": [mlx, *VERSION_1["model_specs"]]})
    registration = read_registration("LLM", json.dumps(document), builtin_families())
    assert len(registration.family.model_specs) == 2
    assert registration.notes == ("model_specs[0] is left out: mlx, and it is for Apple's GPUs",)


@pytest.mark.parametrize(
    ("changes", "template"),
    [
        ({"prompt_style": "llama-2-chat"}, builtin_families()["llama-2-chat"].chat_template),
        ({"prompt_style": ..., "model_family": "llama-2-chat"}, builtin_families()["llama-2-chat"].chat_template),
        (
            {"prompt_style": ..., "chat_template": "smollm2-instruct"},
            builtin_families()["smollm2-instruct"].chat_template,
        ),
        ({"prompt_style": ...}, None),
    ],
)
def test_a_template_is_taken_from_a_built_in_model_by_its_name_or_from_the_weights(
    changes: Json, template: str | None
) -> None:
    assert read(changed(VERSION_1, changes)).chat_template == template


def test_a_family_that_older_versions_knew_by_name_has_its_style() -> None:
    family = read(changed(VERSION_1, {"prompt_style": ..., "model_family": "qwen-7b-chat"}))
    assert "<|im_start|>assistant" in str(family.chat_template)


def test_ggmlv3_takes_what_its_files_leave_out_from_the_built_in_model_of_its_family() -> None:
    spec = {
        "model_format": "ggmlv3",
        "model_size_in_billions": 7,
        "quantizations": ["q4_0"],
        "model_uri": "file:///models",
        "model_file_name_template": "m.{quantization}.bin",
    }
    family = read(changed(VERSION_1, {"model_specs": [spec], "model_family": "llama-2-chat"}))
    assert family.model_specs[0].ggml is not None


SPEC = "model_specs/0/"
BAD: list[tuple[Json, str]] = [
    ({"version": 3}, "version is 3"),
    ({"model_name": ...}, "model_name is missing"),
    ({"model_name": ""}, "model_name is ''"),
    ({"model_name": "a b"}, "Invalid model name 'a b'"),
    ({"model_name": "a/b"}, "Invalid model name 'a/b'"),
    ({"model_name": ".."}, "Invalid model name '..'"),
    ({"model_name": 7}, "model_name is 7"),
    ({"model_name": "x" * 101}, "Invalid model name"),
    ({"context_length": 0}, "context_length is 0"),
    ({"context_length": "4k"}, "context_length is '4k'"),
    ({"context_length": True}, "context_length is true"),
    ({"context_lenght": 5, "context_length": ...}, "context_lenght is not a field"),
    ({"model_lang": "en"}, "model_lang is 'en'"),
    ({"model_lang": [1]}, "model_lang[0] is 1"),
    ({"model_ability": []}, "model_ability is missing"),
    ({"model_ability": ["chatt"]}, "model_ability[0] is 'chatt'"),
    ({"model_family": None}, "You must specify `model_family`"),
    ({"model_family": "unheard", "prompt_style": ...}, "model_family is 'unheard', and `model_family` for chat model"),
    ({"model_specs": []}, "model_specs is []"),
    ({"model_specs": ...}, "model_specs is missing"),
    ({"model_specs": [5]}, "model_specs[0] is 5"),
    ({f"{SPEC}model_format": "gguf9"}, "model_specs[0].model_format is 'gguf9'"),
    ({"model_specs": [VERSION_1["model_specs"][1] | {"model_format": "mlx"}]}, "model_specs[0].model_format is 'mlx'"),
    ({f"{SPEC}model_size_in_billions": ...}, "model_specs[0].model_size_in_billions is missing"),
    ({f"{SPEC}model_size_in_billions": "big"}, "model_specs[0].model_size_in_billions is 'big'"),
    ({f"{SPEC}model_size_in_billions": 0}, "model_specs[0].model_size_in_billions is 0"),
    ({f"{SPEC}quantizations": ["../x"]}, "model_specs[0].quantizations is '../x'"),
    ({f"{SPEC}quantizations": ["q4_0", "Q4_0"]}, 'model_specs[0].quantizations is ["q4_0", "Q4_0"]'),
    ({f"{SPEC}quantizations": ...}, "model_specs[0].quantizations is missing"),
    ({f"{SPEC}model_id": ...}, "model_specs[0].model_id is missing"),
    ({f"{SPEC}model_id": "../etc"}, "model_specs[0].model_id is '../etc'"),
    ({f"{SPEC}model_hub": "csghub"}, "model_specs[0].model_hub is 'csghub'"),
    ({f"{SPEC}model_revision": "a..b"}, "model_specs[0].model_revision is 'a..b'"),
    ({f"{SPEC}model_uri": "models/x.gguf"}, "model_specs[0].model_uri: Model URI cannot be a relative path"),
    ({f"{SPEC}model_uri": "file://models/x.gguf"}, "model_specs[0].model_uri: Model URI cannot be a relative path"),
    ({f"{SPEC}model_uri": "s3://bucket/x"}, "model_specs[0].model_uri is 's3://bucket/x'"),
    ({f"{SPEC}model_uri": "file:///models/../etc"}, "model_specs[0].model_uri is 'file:///models/../etc'"),
    ({f"{SPEC}model_file_name_template": ...}, "model_specs[0].model_file_name_template is missing"),
    ({f"{SPEC}model_file_name_template": "m.gguf"}, "model_specs[0].model_file_name_template is 'm.gguf'"),
    ({f"{SPEC}model_file_name_template": "../{quantization}"}, "model_specs[0].model_file_name_template is"),
    ({f"{SPEC}model_file_name_template": "{q}.gguf"}, "model_specs[0].model_file_name_template is '{q}.gguf'"),
    ({f"{SPEC}multimodal_projectors": ["../mmproj.gguf"]}, "model_specs[0].multimodal_projectors is"),
    ({f"{SPEC}multimodal_projectors": "mmproj.gguf"}, "model_specs[0].multimodal_projectors is"),
    ({"model_specs/1/multimodal_projectors": ["mmproj.gguf"]}, "model_specs[1].multimodal_projectors is"),
    ({f"{SPEC}quantization_parts": {"q5_0": ["a"]}}, "model_specs[0].quantization_parts is"),
    ({f"{SPEC}quantization_parts": {"q8_0": []}}, "model_specs[0].quantization_parts.q8_0 is []"),
    ({f"{SPEC}model_file_name_split_template": ...}, "model_specs[0].model_file_name_split_template is missing"),
    ({f"{SPEC}model_file_name_split_template": "x"}, "model_specs[0].model_file_name_split_template is 'x'"),
    ({"model_specs/1": VERSION_1["model_specs"][0]}, "model_specs[1] repeats ggufv2 7 q4_0"),
    ({"prompt_style": "NONESUCH"}, "prompt_style is 'NONESUCH'"),
    ({"prompt_style/style_name": "NONESUCH"}, "prompt_style.style_name is 'NONESUCH'"),
    ({"prompt_style/roles": ["USER"]}, 'prompt_style.roles is ["USER"]'),
    ({"chat_template": "hello"}, "chat_template is 'hello'"),
    ({"stop": "x"}, "stop is 'x'"),
    ({"stop_token_ids": ["2"]}, "stop_token_ids[0] is '2'"),
    ({"stop_token_ids": [-1]}, "stop_token_ids[0] is -1"),
]


@in_one_test(("changes", "said"), BAD, ids=[said for _, said in BAD])
def test_a_bad_one_names_the_field_its_value_and_the_way_out(changes: Json, said: str) -> None:
    with pytest.raises(Problem) as caught:
        read(changed(VERSION_1, changes))
    assert caught.value.status == 400 and caught.value.hint
    assert said in caught.value.cause


@pytest.mark.parametrize("uri", ["a" * 2_000_000, f"{'s' * 2_000_000}://x"])
def test_a_refusal_shows_only_the_beginning_of_a_long_path(uri: str) -> None:
    with pytest.raises(Problem) as caught:
        read(changed(VERSION_1, {f"{SPEC}model_uri": uri}))
    assert len(caught.value.cause) < 1000


@pytest.mark.parametrize(
    ("model_type", "document", "said"),
    [
        ("embedding", changed(EMBEDDING_1, {"dimensions": "many"}), "dimensions is 'many'"),
        ("embedding", changed(EMBEDDING_1, {"max_tokens": -5}), "max_tokens is -5"),
        ("embedding", changed(EMBEDDING_2, {"model_specs/1/model_id": ...}), "model_specs[1].model_id is missing"),
        ("rerank", changed(RERANK, {"type": 1}), "type is 1"),
        ("rerank", changed(RERANK, {"language": {}}), "language is {}"),
    ],
)
def test_a_bad_embedding_model_or_reranker_names_the_field(model_type: ModelType, document: Json, said: str) -> None:
    with pytest.raises(Problem) as caught:
        read(document, model_type)
    assert caught.value.status == 400 and said in caught.value.cause


@in_one_test("text", ["", "[]", "7", '"x"', "{", '{"a": 1', "[1, 2]", "\ud800", "[" * 100_000])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        read_registration("LLM", text, builtin_families())
    assert caught.value.status == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, way: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children: list[tuple[str | int, Any]] = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [way, *(path for key, child in children for path in _paths(child, (*way, key)))]


@settings(max_examples=examples(400), deadline=None)
@given(data=st.data())
def test_whatever_is_changed_in_a_document_it_is_read_or_refused_with_a_problem(data: st.DataObject) -> None:
    model_type, document = data.draw(
        st.sampled_from(
            [
                ("LLM", VERSION_1),
                ("LLM", VERSION_2),
                ("embedding", EMBEDDING_1),
                ("embedding", EMBEDDING_2),
                ("rerank", RERANK),
            ]
        )
    )
    document = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(document)[1:]))
        node: Any = document
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = data.draw(JSON)
    try:
        text = json.dumps(document)
        family = read_registration(model_type, text, builtin_families()).family
    except Problem as problem:
        assert problem.status == 400 and problem.hint
    else:
        assert family.model_specs and all(spec.quantizations and spec.sources for spec in family.model_specs)
