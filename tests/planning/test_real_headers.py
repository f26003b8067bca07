"""Plans of real models: by the header of their weights, and by the registry before a byte of them is fetched.

The true shapes come from transformers' own classes (`recorded/record_shapes.py`), not from this project.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planning.packed_headers import PACKINGS, RECORDED, write_headers
from xinference.catalog.models import ModelVersion
from xinference.catalog.registry import builtin_families
from xinference.engines.registry import all_engines
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest
from xinference.planning.version_size import estimated_bytes
from xinference.planning.weights_estimate import kv_bytes_per_token
from xinference.weights.shape_reader import read_shape

#: Maximum difference of a plan.
WITHIN = 0.03
#: Model, packing -> the version in the registry: family, size, format, quantization.
VERSIONS: dict[tuple[str, str], tuple[str, int | str, str, str]] = {
    ("llama-2-7b", "none"): ("llama-2-chat", 7, "pytorch", "none"),
    ("llama-2-7b", "GPTQ Int4"): ("llama-2-chat", 7, "gptq", "Int4"),
    ("llama-3.1-8b", "none"): ("llama-3.1-instruct", 8, "pytorch", "none"),
    ("llama-3.1-8b", "AWQ"): ("llama-3.1-instruct", 8, "awq", "Int4"),
    ("qwen3-8b", "none"): ("qwen3", 8, "pytorch", "none"),
    ("qwen3-8b", "fp8"): ("qwen3", 8, "fp8", "fp8"),
    ("qwen3-8b", "GPTQ Int8"): ("qwen3", 8, "gptq", "Int8"),
    ("gemma-3-12b", "none"): ("gemma-3-it", 12, "pytorch", "none"),
    ("qwen3-30b-a3b", "none"): ("qwen3", 30, "pytorch", "none"),
    ("qwen3-30b-a3b", "fp8"): ("qwen3", 30, "fp8", "fp8"),
    ("qwen3-next-80b-a3b", "none"): ("Qwen3-Next-Instruct", 80, "pytorch", "none"),
    ("moonlight-16b-a3b", "none"): ("moonlight-16b-a3b-instruct", 3, "pytorch", "none"),
    ("deepseek-v3", "fp8"): ("deepseek-v3", 671, "pytorch", "none"),
    ("gpt-oss-20b", "MXFP4"): ("gpt-oss", 20, "pytorch", "none"),
}
#: Model, packing -> packings of every kind on one dense model, and those of experts on theirs.
PLANNED = [
    *VERSIONS,
    *(("llama-3.1-8b", packing) for packing in PACKINGS if packing not in ("none", "AWQ", "MXFP4")),
    ("qwen3-30b-a3b", "NVFP4"),
    ("qwen3-30b-a3b", "W4A16"),
]


def version_of(model: str, packing: str) -> ModelVersion:
    family, size, model_format, quantization = VERSIONS.get((model, packing), ("qwen3", 8, "pytorch", "none"))
    request = LaunchRequest(
        model_name=family, model_size_in_billions=size, model_format=model_format, quantization=quantization
    )
    return match(builtin_families(), request)


@pytest.mark.parametrize(("model", "packing"), PLANNED, ids=lambda value: value)
def test_the_header_gives_the_true_bytes_of_weights_and_cache(model: str, packing: str, tmp_path: Path) -> None:
    size = write_headers(model, packing, tmp_path / "model")
    shape, _ = read_shape(tmp_path / "model", version_of(model, packing))
    assert shape.weights_bytes == pytest.approx(size, rel=WITHIN)
    assert shape.kv_bytes_per_token == RECORDED[model]["cached_elements_per_token"] * 2
    assert (shape.packing is None) == (packing == "none")


@pytest.mark.parametrize(("model", "packing"), VERSIONS, ids=lambda value: value)
def test_the_registry_plans_the_same_before_a_byte_is_fetched(model: str, packing: str, tmp_path: Path) -> None:
    size = write_headers(model, packing, tmp_path / "model")
    version = version_of(model, packing)
    assert estimated_bytes(version) == pytest.approx(size, rel=WITHIN)
    assert version.spec.shape is not None
    cached = RECORDED[model]["cached_elements_per_token"] * 2
    assert kv_bytes_per_token(version.spec.shape) == pytest.approx(cached, rel=WITHIN)


@pytest.mark.parametrize("packing", ["fp8", "MXFP4"])
def test_what_transformers_unpacks_is_planned_unpacked(packing: str, tmp_path: Path) -> None:
    model = "qwen3-8b" if packing == "fp8" else "gpt-oss-20b"
    write_headers(model, packing, tmp_path / "packed")
    whole = write_headers(model, "none", tmp_path / "whole")
    shape, _ = read_shape(tmp_path / "packed", version_of(model, packing))
    loaded = all_engines()["Transformers"].memory.loaded_shape(shape, "fp8", "FP8", {}, on_cpu=True)
    # Of MXFP4, only the experts are packed, and the header of the folder does not say which part they are.
    assert whole * (1 - WITHIN) <= loaded.weights_bytes <= whole * (1 + (WITHIN if packing == "fp8" else 0.1))
