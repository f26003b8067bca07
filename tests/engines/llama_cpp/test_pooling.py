"""A GGUF file that cannot make vectors or scores is refused at its launch, with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.engines.plans import pooling_plan
from xinference.catalog.models import ModelType
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.errors import Problem
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import ResolvedLaunch

ENGINE = LlamaCpp()


def shape_of(pooling_type: int | None, architecture: str = "llama") -> ModelShape:
    return ModelShape(1, 1, 512, 10, pooled=True, architecture=architecture, pooling_type=pooling_type)


def launch_with(model_type: ModelType, **options: Any) -> ResolvedLaunch:
    return replace(pooling_plan(model_type).launch, options=options)


@pytest.mark.parametrize("pooling_type", [1, 2, 3])
def test_a_file_that_names_its_pooling_is_taken(pooling_type: int) -> None:
    ENGINE.check_weights(launch_with("embedding"), shape_of(pooling_type, "bert"))


@pytest.mark.parametrize("pooling_type", [None, 0])
def test_a_file_without_a_pooling_makes_no_vectors_unless_the_launch_names_one(pooling_type: int | None) -> None:
    with pytest.raises(Problem, match="names no pooling") as caught:
        ENGINE.check_weights(launch_with("embedding"), shape_of(pooling_type))
    assert caught.value.code == "engine_unsupported"
    assert "--pooling_type mean, cls or last" in str(caught.value.hint)
    for named in ("mean", "LAST", "2", "LLAMA_POOLING_TYPE_MEAN"):  # the last as checked options have it
        ENGINE.check_weights(launch_with("embedding", pooling_type=named), shape_of(pooling_type))


@pytest.mark.parametrize("named", ["none", "rank", "NONE", "LLAMA_POOLING_TYPE_NONE", "LLAMA_POOLING_TYPE_RANK"])
def test_a_pooling_that_makes_no_vectors_is_refused(named: str) -> None:
    with pytest.raises(Problem, match="makes no vectors") as caught:
        ENGINE.check_weights(launch_with("embedding", pooling_type=named), shape_of(1))
    assert caught.value.code == "bad_option"


def test_only_a_file_with_a_rank_head_ranks() -> None:
    ENGINE.check_weights(launch_with("rerank"), shape_of(4, "bert"))
    for pooling_type in (None, 0, 1):
        with pytest.raises(Problem, match="has no head that computes a score"):
            ENGINE.check_weights(launch_with("rerank"), shape_of(pooling_type))
    with pytest.raises(Problem, match="that of a reranker"):
        ENGINE.check_weights(launch_with("embedding"), shape_of(4, "bert"))


def test_weights_that_were_not_read_are_not_refused() -> None:
    for kind in ("embedding", "rerank"):
        ENGINE.check_weights(launch_with(kind), ModelShape(1, 1, 512, 10))
