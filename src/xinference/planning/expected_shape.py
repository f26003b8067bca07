"""The shape of weights that are not on this machine, without a look at their hub. Pure."""

from __future__ import annotations

from xinference.catalog.models import ModelVersion, Source
from xinference.errors import Problem
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import ShapeSource
from xinference.planning.gguf_makers import stored_shape
from xinference.planning.weights_estimate import registry_shape, rough_shape


def expected_shape(version: ModelVersion, source: Source) -> tuple[ModelShape, ShapeSource]:
    """The shape from the registry, or a rough one from the size."""
    facts = source.facts.get(version.quantization)
    size = facts.size if facts and facts.size else version.spec.weights_bytes.get(version.quantization)
    if (shape := stored_shape(version)) is not None:
        try:
            return registry_shape(shape, version, size), "registry"
        except Problem:  # a quantization whose types are not known
            pass
    return rough_shape(version), "estimate"
