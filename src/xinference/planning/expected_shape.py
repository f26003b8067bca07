"""The shape of weights that are not on this machine, without a look at their hub. Pure."""

from __future__ import annotations

import msgspec

from xinference.catalog.known_projectors import projectors_bytes, registered_weights
from xinference.catalog.models import ModelVersion, Source
from xinference.errors import Problem
from xinference.launch.forecast import ShapeSource
from xinference.launch.model_shape import ModelShape
from xinference.planning.gguf_makers import stored_shape
from xinference.planning.weights_estimate import registry_shape, rough_shape


def expected_shape(version: ModelVersion, source: Source) -> tuple[ModelShape, ShapeSource]:
    """The shape from the registry, or a rough one from the size; with the projector of a launch from this source."""
    shape, origin = _weights_shape(version, registered_weights(version, source))
    if projectors := projectors_bytes(version, source):
        shape = msgspec.structs.replace(shape, weights_bytes=shape.weights_bytes + projectors)
    return shape, origin


def _weights_shape(version: ModelVersion, size: int | None) -> tuple[ModelShape, ShapeSource]:
    if (shape := stored_shape(version)) is not None:
        try:
            return registry_shape(shape, version, size), "registry"
        except Problem:  # a quantization whose types are not known
            pass
    return rough_shape(version), "estimate"
