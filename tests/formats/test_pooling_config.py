"""The longest input and the vector's length by the files next to a model's config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.formats.model_config import read_config
from xinference.formats.pooling_config import longest_input, vector_length

MODULES = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
DENSE = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}


@in_one_test(
    ("files", "trained", "longest"),
    [
        ({"sentence_bert_config.json": {"max_seq_length": 256}, "tokenizer_config.json": {}}, 512, 256),
        ({"sentence_xlm-roberta_config.json": {"max_seq_length": 128}}, 512, 128),
        ({"tokenizer_config.json": {"model_max_length": 384}}, 512, 384),
        ({"tokenizer_config.json": {"model_max_length": 10**30}}, 512, 512),
        ({"sentence_bert_config.json": {"max_seq_length": None}}, 512, 512),
        ({"sentence_bert_config.json": {"max_seq_length": 9999}}, 512, 512),
        ({"sentence_bert_config.json": ["odd"]}, 512, 512),
        ({}, None, None),
    ],
)
def test_the_shortest_limit_of_the_files_counts(
    files: dict[str, Any], trained: int | None, longest: int | None
) -> None:
    assert longest_input(files.get, trained) == longest


@in_one_test(
    ("files", "length"),
    [
        ({}, 8),
        ({"modules.json": MODULES}, 8),
        ({"modules.json": [*MODULES, DENSE], "2_Dense/config.json": {"in_features": 8, "out_features": 3}}, 3),
        ({"modules.json": [*MODULES, DENSE]}, None),
        (
            {
                "modules.json": MODULES,
                "1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            },
            16,
        ),
        ({"modules.json": "odd"}, 8),
    ],
)
def test_modules_change_the_length_of_a_vector(files: dict[str, Any], length: int | None) -> None:
    assert vector_length(files.get, 8) == length


@pytest.mark.parametrize(("model_type", "positions"), [("bert", 514), ("roberta", 512), ("xlm-roberta", 512)])
def test_positions_that_begin_after_the_padding_token_are_fewer(model_type: str, positions: int) -> None:
    config = {"model_type": model_type, "max_position_embeddings": 514, "pad_token_id": 1}
    assert read_config(json.dumps(config).encode(), Path("config.json")).context_length == positions


@pytest.mark.parametrize(
    ("fields", "labels"), [({"id2label": {"0": "LABEL_0"}}, 1), ({"num_labels": 3}, 3), ({}, None)]
)
def test_the_number_of_labels_is_read(fields: dict[str, Any], labels: int | None) -> None:
    assert read_config(json.dumps(fields).encode(), Path("config.json")).labels == labels
