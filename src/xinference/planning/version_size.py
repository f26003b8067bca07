"""Estimates whether a version's weights fit in a machine's memory, before anything is downloaded. Pure."""

from __future__ import annotations

from xinference.catalog.known_projectors import registered_weights
from xinference.catalog.models import ModelShapeFacts, ModelSpec, ModelVersion, number_of_billions
from xinference.engines.memory_model import MemoryModel
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.planning.gguf_makers import are_early, stored_shape
from xinference.planning.memory import USABLE_SHARE
from xinference.planning.weights_estimate import rough_bits, weights_bytes


def estimated_bytes(version: ModelVersion) -> int | None:
    """Bytes of a version's weights, as its hub states or by its number of parameters; None: unknown."""
    spec, quantization = version.spec, version.quantization
    if (registered := registered_weights(version)) is not None:
        return registered
    shape = stored_shape(version) or _shape_of_size(spec)
    if shape is None:
        return None
    try:
        return weights_bytes(shape, spec.model_format, quantization, early=are_early(version))
    except Problem:  # a mix of another quantizer, such as UD-Q4_K_XL
        return int(shape.parameters * rough_bits(spec.model_format, quantization) / 8)


def usable_bytes(host: Host, model: MemoryModel, *, use_gpu: bool) -> int:
    """Bytes of this machine's memory that one model may take while no other runs.

    The total and not the free memory: the choice of a version must not depend on the models that run now, or a second
    launch of a model would be another version.
    """
    gpus = sum(gpu.memory_total for gpu in host.gpus if not gpu.mig) if use_gpu else 0
    total = gpus + (host.memory_total if model.spills_to_host else 0) if gpus else host.memory_total
    return int(total * USABLE_SHARE)


def _shape_of_size(spec: ModelSpec) -> ModelShapeFacts | None:
    """A shape of which only the number of parameters is known."""
    billions = number_of_billions(spec.model_size_in_billions)
    if isinstance(billions, str) or not billions:
        return None
    return ModelShapeFacts(parameters=int(billions * 1e9), layers=0, heads=0, kv_heads=0, head_dim=0, hidden=0, vocab=0)
