"""The parts of the Transformers server for embeddings that need no torch: module files, groups, requests."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import in_one_test
from xinference.engines.transformers.server.errors import LoadError, RefusedError
from xinference.engines.transformers.server.length_groups import GroupLimits, cpu_limits, next_group, packed_limits
from xinference.engines.transformers.server.module_files import Pooling, pooling_of, read_module_files
from xinference.engines.transformers.server.requests import EmbeddingRequest, RerankRequest, read
from xinference.engines.transformers.server.sparse import check_sparse, weights_by_token

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}


def module(kind: str, path: str) -> dict[str, Any]:
    return {"name": path, "path": path, "type": f"sentence_transformers.models.{kind}"}


def folder_of(root: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return root


# -- sparse embeddings ------------------------------------------------------------------------------------------------


def test_a_token_has_its_greatest_weight_and_special_and_unweighted_tokens_have_none() -> None:
    assert weights_by_token([0, 7, 8, 7, 9, 2], [5.0, 0.5, 0.0, 0.75, 0.25, 5.0], {0, 2}) == {"7": 0.75, "9": 0.25}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"encoding_format": "base64"}, "encoding_format"),
        ({"dimensions": 3}, "dimensions"),
    ],
)
def test_a_sparse_request_for_vectors_is_refused_by_its_field(fields: dict[str, Any], param: str) -> None:
    request = EmbeddingRequest(model="m", input="x", return_sparse=True, **fields)
    with pytest.raises(RefusedError) as caught:
        check_sparse(request, SimpleNamespace(token_weights=object()))
    assert caught.value.error["param"] == param
    with pytest.raises(RefusedError, match=r"sparse_linear\.safetensors"):
        check_sparse(request, SimpleNamespace(token_weights=None))


# -- module files -----------------------------------------------------------------------------------------------------


def test_a_folder_without_module_files_is_pooled_by_the_mean(tmp_path: Path) -> None:
    files = read_module_files(tmp_path)
    assert (files.transformer, files.pooling, files.stages) == (tmp_path, Pooling(("mean",)), ())
    assert files.max_length is None and not files.prompts and files.default_prompt is None


def test_the_files_of_sentence_transformers_are_read(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        {
            "modules.json": [TRANSFORMER, POOLING, module("Dense", "2_Dense"), module("Normalize", "3_Normalize")],
            "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_cls_token": True},
            "2_Dense/config.json": {"in_features": 8, "out_features": 4},
            "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": True},
            "config_sentence_transformers.json": {
                "prompts": {"query": "query: ", "document": ""},
                "default_prompt_name": "query",
            },
        },
    )
    files = read_module_files(folder)
    assert files.pooling == Pooling(("cls",)) and files.lower_case and files.max_length == 256
    assert [stage.kind for stage in files.stages] == ["Dense", "Normalize"]
    assert files.stages[0].options["out_features"] == 4
    assert (files.prompts, files.default_prompt) == ({"query": "query: "}, "query")


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, ("lasttoken",)),
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["mean", "max"]}, ("mean", "max")),
        ({"word_embedding_dimension": 8}, ("mean",)),
    ],
)
def test_old_and_new_pooling_files_name_the_modes(tmp_path: Path, config: dict[str, Any], modes: Any) -> None:
    folder = folder_of(tmp_path, {"modules.json": [TRANSFORMER, POOLING], "1_Pooling/config.json": config})
    assert read_module_files(folder).pooling.modes == modes


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"modules.json": "not json"}, "is not JSON"),
        ({"modules.json": [TRANSFORMER, {"type": "custom_st.Module", "path": ""}]}, "program of the repository"),
        ({"modules.json": [{"type": "custom_st.Transformer", "path": ""}]}, "program of the repository"),
        ({"modules.json": [module("WordEmbeddings", "0_WordEmbeddings")]}, "does not begin with a Transformer"),
        ({"modules.json": [TRANSFORMER, POOLING, module("CNN", "2_CNN")]}, "has a module CNN"),
        ({"modules.json": [TRANSFORMER, POOLING, module("Dense", "../2_Dense")]}, "outside of the model's folder"),
        ({"modules.json": [TRANSFORMER, POOLING], "1_Pooling/config.json": {"pooling_mode": "best"}}, "is not one of"),
        ({"modules.json": {"a": 1}}, "not a list of modules"),
        ({"config_sentence_transformers.json": []}, "is not a JSON object"),
    ],
)
def test_what_cannot_be_served_is_named(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadError, match=said):
        read_module_files(folder_of(tmp_path, files))


def test_a_launch_may_name_the_pooling() -> None:
    assert pooling_of("last") == pooling_of("LAST") == Pooling(("lasttoken",))
    with pytest.raises(LoadError, match="'best'"):
        pooling_of("best")


# -- groups of similar lengths ----------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 600), min_size=1, max_size=60),
    st.builds(
        GroupLimits,
        most_tokens=st.integers(1, 2000),
        free_padding=st.integers(0, 200),
        padding_share=st.floats(0, 1),
    ),
)
def test_a_group_has_the_oldest_input_and_keeps_the_limits(lengths: list[int], limits: GroupLimits) -> None:
    group = next_group(lengths, limits)
    assert 0 in group and group == sorted(set(group))
    padded = max(lengths[position] for position in group) * len(group)
    assert len(group) == 1 or padded <= limits.most_tokens
    padding = padded - sum(lengths[position] for position in group)
    rests = 2 * limits.free_padding  # the shorter and the longer inputs that would be a last group of their own
    assert padding <= max(limits.free_padding, limits.padding_share * padded) + rests


def test_every_input_is_computed_once() -> None:
    waiting = [(length * 37) % 211 + 1 for length in range(100)]
    computed: list[int] = []
    groups = 0
    while waiting:
        group = next_group(waiting, cpu_limits(384))
        computed += [waiting[position] for position in group]
        waiting = [length for position, length in enumerate(waiting) if position not in group]
        groups += 1
    assert sorted(computed) == sorted((length * 37) % 211 + 1 for length in range(100))
    assert groups < 40


def test_equal_inputs_are_one_group() -> None:
    assert next_group([7] * 32, cpu_limits(384)) == list(range(32))


def test_a_small_rest_joins_the_group_and_a_large_one_does_not() -> None:
    limits = cpu_limits(384)
    assert next_group([16] * 31 + [17], limits) == [*range(32)]
    assert next_group([17] + [16] * 31, limits) == [*range(32)]
    assert next_group([16] * 31 + [60], limits) == [*range(31)]
    assert len(next_group([5, *range(6, 100)], limits)) < 30


def test_texts_whose_padding_costs_little_are_one_group_of_at_most_twice_their_tokens() -> None:
    limits = packed_limits(384)
    assert next_group([*range(12, 76, 2)], limits) == [*range(32)]
    assert len(next_group([500, *([8] * 40)], limits)) <= 2
    lengths = [*range(8, 256)]
    group = next_group(lengths, limits)
    assert max(lengths[n] for n in group) * len(group) <= limits.most_tokens == cpu_limits(384).most_tokens


def test_wider_models_have_smaller_groups_and_less_padding() -> None:
    small, large = cpu_limits(384), cpu_limits(1024)
    assert (small.most_tokens, small.free_padding) == (7812, 61)
    assert (large.most_tokens, large.free_padding) == (2929, 8)
    assert cpu_limits(0).most_tokens == 8192 and cpu_limits(8192).most_tokens == 1024


# -- requests ---------------------------------------------------------------------------------------------------------


def test_an_embedding_request_takes_texts_and_tokens() -> None:
    for given_input in ("a", ["a", "b"], [1, 2], [[1, 2], [3]]):
        body = json.dumps({"model": "m", "input": given_input, "encoding_format": "base64", "user": "me"})
        assert read(body.encode(), EmbeddingRequest).input == given_input


@in_one_test(
    ("body", "kind"),
    [
        ({"model": "m", "input": []}, EmbeddingRequest),
        ({"model": "m", "input": "a", "dimensions": 0}, EmbeddingRequest),
        ({"model": "m", "input": "a", "encoding_format": "hex"}, EmbeddingRequest),
        ({"model": "m", "input": "a", "truncate_prompt_tokens": -2}, EmbeddingRequest),
        ({"model": "m", "query": "q", "documents": []}, RerankRequest),
        ({"model": "m", "query": "q", "documents": ["d"], "top_n": 0}, RerankRequest),
    ],
)
def test_a_wrong_field_is_a_400(body: dict[str, Any], kind: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        read(json.dumps(body).encode(), kind)
    assert caught.value.status == 400 and caught.value.error["param"]
