"""The bytes of a version before its download: as its index says, else by its shape, else by its bits."""

from __future__ import annotations

import msgspec
import pytest

from xinference.catalog.models import ModelVersion
from xinference.catalog.registry import builtin_families
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest
from xinference.planning.version_size import estimated_bytes
from xinference.planning.weights_estimate import kv_bytes_per_token


def version(name: str, size: int, model_format: str, quantization: str) -> ModelVersion:
    request = LaunchRequest(
        model_name=name, model_size_in_billions=size, model_format=model_format, quantization=quantization
    )
    return match(builtin_families(), request)


def test_the_bytes_of_the_index_come_first() -> None:
    assert estimated_bytes(version("qwen3.5", 397, "pytorch", "none")) == 806_795_875_168


@pytest.mark.parametrize(
    ("model_format", "quantization", "bits"),
    [("ggufv2", "UD-Q4_K_XL", 4.85), ("ggufv2", "MXFP4_MOE", 4.85), ("fp8", "FP8", 8.02), ("fp4", "FP4", 4.5)],
)
def test_a_form_without_known_types_is_estimated_by_its_bits(model_format: str, quantization: str, bits: float) -> None:
    known = version("qwen3.5", 35, "pytorch", "none")
    assert known.spec.shape is not None
    spec = msgspec.structs.replace(known.spec, model_format=model_format, weights_bytes={})
    size = estimated_bytes(ModelVersion(family=known.family, spec=spec, quantization=quantization))
    assert size == pytest.approx(known.spec.shape.parameters * bits / 8, rel=0.1)


def test_a_model_of_unknown_size_has_no_estimate() -> None:
    family = builtin_families()["jina-embeddings-v3"]
    spec = msgspec.structs.replace(family.model_specs[0], model_size_in_billions=0)
    assert estimated_bytes(ModelVersion(family=family, spec=spec, quantization="none")) is None


@pytest.mark.parametrize(
    ("name", "size", "elements"),
    [
        ("llama-3.1-instruct", 8, 32 * 8 * 128 * 2),
        ("qwen3.5", 35, 40 // 4 * 2 * 256 * 2),
        ("deepseek-v3", 671, 61 * 576),
    ],
    ids=["grouped queries", "linear attention in three of four layers", "latent attention"],
)
def test_the_cache_of_a_token_follows_the_kind_of_attention(name: str, size: int, elements: int) -> None:
    shape = version(name, size, "pytorch", "none").spec.shape
    assert shape is not None and kv_bytes_per_token(shape) == 2 * elements
