from __future__ import annotations

import msgspec
import pytest

from xinference.catalog.known_projectors import _PARAMETERS, projectors_bytes, registered_weights
from xinference.catalog.models import ModelVersion, Source
from xinference.catalog.registry import builtin_families
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest
from xinference.planning.expected_shape import expected_shape
from xinference.planning.version_size import estimated_bytes


def version_of(quantization: str, size: int | str) -> ModelVersion:
    request = LaunchRequest(
        model_name="qwen3.5", model_format="ggufv2", quantization=quantization, model_size_in_billions=size
    )
    return match(builtin_families(), request)


def source_with(version: ModelVersion, *projectors: str) -> Source:
    return msgspec.structs.replace(version.spec.sources[0], projectors=projectors)


@pytest.mark.parametrize("size", ["0_8", 2, 4, 9])
def test_the_bytes_of_the_facts_are_the_weights_and_a_projector_of_32_bits(size: int | str) -> None:
    """Both quantizations store nearly all of the weights, so that the weights follow from the difference of the two."""
    versions = {name: version_of(name, size) for name in ("BF16", "Q8_0")}
    total = {name: version.spec.weights_bytes[name] for name, version in versions.items()}
    weights = (total["BF16"] - total["Q8_0"]) / (16 - 8.5) * 16
    assert registered_weights(versions["BF16"]) == pytest.approx(weights, rel=0.01)
    assert total["BF16"] - weights == pytest.approx(_PARAMETERS["qwen3.5", str(size)] * 4, rel=0.04)


@pytest.mark.parametrize("size", ["0_8", 2, 4, 9, 27, 35])
def test_a_plan_has_the_bytes_of_the_projector_that_it_uses(size: int | str) -> None:
    version = version_of("Q8_0", size)
    tower = _PARAMETERS["qwen3.5", str(size)]
    alone, _ = expected_shape(version, source_with(version))
    assert alone.weights_bytes == version.spec.weights_bytes["Q8_0"] - tower * 4 == estimated_bytes(version)
    for name, width in (("mmproj-F16.gguf", 2), ("mmproj-BF16.gguf", 2), ("mmproj-F32.gguf", 4)):
        source = source_with(version, name)
        both, origin = expected_shape(version, source)
        assert both.weights_bytes - alone.weights_bytes == projectors_bytes(version, source) == tower * width
        assert origin == "registry"
    unnamed, _ = expected_shape(version, source_with(version, "mmproj-F16.gguf", "mmproj-F32.gguf"))
    assert unnamed == alone, "a launch that names none of several uses none"


def test_every_family_whose_facts_have_projectors_and_bytes_is_known() -> None:
    families = builtin_families()
    unknown = {
        (name, str(spec.model_size_in_billions))
        for name in families
        for spec in families[name].model_specs
        if spec.weights_bytes and any(source.projectors for source in spec.sources)
    } - {*_PARAMETERS}
    assert unknown == set()
