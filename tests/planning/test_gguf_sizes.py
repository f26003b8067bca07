"""The estimated sizes of GGUF files are those that their publishers show, and those that the facts have exactly."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import msgspec
import pytest

from tests.support.cases import in_one_test
from xinference.catalog.models import ModelShapeFacts, ModelSpec, ModelVersion, same_size
from xinference.catalog.registry import builtin_families
from xinference.planning.gguf_makers import are_early, stored_shape
from xinference.planning.version_size import estimated_bytes
from xinference.planning.weights_estimate import weights_bytes

MB = 10**6
#: Megabytes of files as their repositories show them, rounded there to three digits; Q4_K_M unless named.
PUBLISHED: list[tuple[str, int | str, str, int]] = [
    # Trained with one matrix for the vocabulary, and stored with two: Qwen1.5 and Qwen2.5 by their maker.
    ("qwen1.5-chat", "0_5", "q4_k_m", 407),
    *[("qwen2.5-instruct", "0_5", name, size) for name, size in {
        "q2_k": 415, "q3_k_m": 432, "q4_0": 429, "q4_k_m": 491, "q5_0": 490, "q5_k_m": 522, "q6_k": 650, "q8_0": 676,
    }.items()],
    *[("qwen2.5-instruct", "1_5", name, size) for name, size in {
        "q2_k": 753, "q3_k_m": 924, "q4_0": 1070, "q4_k_m": 1120, "q5_k_m": 1290, "q6_k": 1460, "q8_0": 1890,
    }.items()],
    *[("qwen2.5-instruct", 3, name, size) for name, size in {
        "q2_k": 1380, "q3_k_m": 1720, "q4_0": 2000, "q4_k_m": 2100, "q5_k_m": 2440, "q6_k": 2790, "q8_0": 3620,
    }.items()],
    ("qwen2.5-coder-instruct", "0_5", "q4_k_m", 491),
    # The same in files of 2023.
    ("tiny-llama", 1, "q4_k_m", 669),
    ("deepseek-coder", "1_3", "q4_k_m", 874),
    # Trained and stored with one matrix.
    ("qwen2-instruct", "0_5", "q4_k_m", 398),
    ("qwen2-instruct", "1_5", "q4_k_m", 986),
    ("qwen3", "0_6", "q4_k_m", 397),
    ("qwen3", "1_7", "q4_k_m", 1110),
    ("qwen3", 4, "q4_k_m", 2500),
    ("llama-3.2-instruct", 1, "q4_k_m", 808),
    ("llama-3.2-instruct", 3, "q4_k_m", 2020),
    ("gemma-2-it", 2, "q4_k_m", 1710),
    ("gemma-3-1b-it", 1, "q4_k_m", 806),
    ("gemma-3-it", 12, "q4_k_m", 7300),
    ("granite-3.3-instruct", 2, "q4_k_m", 1550),
    ("smollm2-instruct", "0_36", "q4_k_m", 271),
    ("smollm3", 3, "q4_k_m", 1920),
    # Trained with two matrices.
    ("deepseek-r1-distill-qwen", "1_5", "q4_k_m", 1120),
    ("qwen3", 8, "q4_k_m", 5030),
    ("llama-2-chat", 7, "q4_k_m", 4081),
    ("llama-3.1-instruct", 8, "q4_k_m", 4920),
]  # fmt: skip


def gguf_spec(name: str, size: int | str, quantization: str) -> ModelVersion:
    family = builtin_families()[name]
    for spec in family.model_specs:
        names = {each.lower(): each for each in spec.quantizations}
        if spec.model_format == "ggufv2" and same_size(spec.model_size_in_billions, size) and quantization in names:
            return ModelVersion(family=family, spec=spec, quantization=names[quantization])
    raise AssertionError((name, size, quantization))


@in_one_test(("name", "size", "quantization", "megabytes"), PUBLISHED)
def test_the_estimate_is_the_published_size(name: str, size: int | str, quantization: str, megabytes: int) -> None:
    assert estimated_bytes(gguf_spec(name, size, quantization)) == pytest.approx(megabytes * MB, rel=0.02)


def test_most_of_the_published_sizes_are_met_within_one_percent() -> None:
    errors = [
        abs((estimated_bytes(gguf_spec(name, size, quantization)) or 0) / (megabytes * MB) - 1)
        for name, size, quantization, megabytes in PUBLISHED
    ]
    assert statistics.median(errors) < 0.008


def exact_files() -> Iterator[tuple[ModelVersion, int]]:
    """The single files whose exact size the registry has, and its size."""
    for family in builtin_families().values():
        for spec in family.model_specs:
            for source in spec.sources if spec.model_format == "ggufv2" else ():
                for quantization, facts in source.facts.items():
                    if facts.size is not None and spec.shape is not None:
                        yield ModelVersion(family=family, spec=spec, quantization=quantization), facts.size


def test_the_estimates_of_files_of_exact_size_are_near_it() -> None:
    every = list(exact_files())
    assert every
    for version, size in every:
        shape = stored_shape(version)
        assert shape is not None
        estimate = weights_bytes(shape, "ggufv2", version.quantization, early=are_early(version))
        assert estimate == pytest.approx(size, rel=0.02), version.version_id


def with_sizes_of_folders() -> list[ModelSpec]:
    """The specs with the exact sizes of all files of a launch, among them BF16 and Q8_0."""
    return [
        spec
        for family in builtin_families().values()
        for spec in family.model_specs
        if spec.model_format == "ggufv2" and {"BF16", "Q8_0"} <= spec.weights_bytes.keys()
    ]


def language_part(spec: ModelSpec) -> tuple[ModelShapeFacts, float]:
    """The shape of the language model, and the bytes of its projector: the exact sizes have both of them.

    Both follow from two files of the same tensors, which have 16 and 8.5 bits for each.
    """
    assert spec.shape is not None
    parameters = (spec.weights_bytes["BF16"] - spec.weights_bytes["Q8_0"]) / (2 - 8.5 / 8)
    projector = spec.weights_bytes["BF16"] - 2 * parameters
    shape = msgspec.structs.replace(spec.shape, parameters=int(parameters), tied=parameters < 5e9)
    return shape, projector


@in_one_test("quantization", ["Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K"])
def test_the_exact_sizes_of_models_that_see_are_met_with_their_projector(quantization: str) -> None:
    errors = []
    for spec in with_sizes_of_folders():
        if quantization in spec.weights_bytes:
            shape, projector = language_part(spec)
            estimate = weights_bytes(shape, "ggufv2", quantization) + projector
            errors.append(estimate / spec.weights_bytes[quantization] - 1)
    assert len(errors) >= 4
    assert abs(statistics.median(errors)) < 0.04, errors
