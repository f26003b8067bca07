"""The shape of a model, and of the share that one of several nodes has."""

from __future__ import annotations

import pytest

from xinference.launch.model_shape import ModelShape
from xinference.units import GIB

SHAPE = ModelShape(
    weights_bytes=142 * GIB,
    kv_bytes_per_token=80 * 4096,
    trained_context=4096,
    vocab_size=128_000,
    layers=80,
    linear_bytes=140 * GIB,
)


def test_each_of_two_nodes_has_half_of_the_layers_and_the_whole_vocabulary() -> None:
    rank = SHAPE.of_rank(2)
    assert rank.layers == 40
    assert rank.linear_bytes == 70 * GIB
    assert rank.weights_bytes == 72 * GIB
    assert rank.kv_bytes_per_token == 40 * 4096
    assert rank.trained_context == SHAPE.trained_context


@pytest.mark.parametrize("ranks", [1, 3, 7, 80, 81])
def test_the_ranks_together_have_the_whole_model(ranks: int) -> None:
    rank = SHAPE.of_rank(ranks)
    assert rank.weights_bytes * ranks >= SHAPE.weights_bytes
    assert rank.kv_bytes_per_token * ranks >= SHAPE.kv_bytes_per_token
    assert rank.layers >= 1
    if ranks == 1:
        assert rank == SHAPE


def test_a_shape_without_known_layers_is_divided_evenly() -> None:
    unknown = ModelShape(weights_bytes=10 * GIB, kv_bytes_per_token=1000, trained_context=1, vocab_size=1)
    assert unknown.of_rank(4).weights_bytes == 10 * GIB // 4
    assert unknown.of_rank(4).layers == 0
