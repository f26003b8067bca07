"""What engines make of stored weights: the types that they hold them in, and their caches. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from xinference.launch.model_shape import BITSANDBYTES_BITS, TYPE_BYTES, ModelShape

#: What weights that are not quantized are widened or narrowed to on the CPU, where nothing else is asked for: kernels
#: for 16 bits are slow or missing on most CPUs in torch, and vLLM brings its own.
CPU_TYPES = {"Transformers": "float32", "vLLM": "bfloat16", "SGLang": "bfloat16"}
TYPE_OPTIONS = {"Transformers": "torch_dtype", "vLLM": "dtype", "SGLang": "dtype"}


def as_held(
    shape: ModelShape, engine: str, model_format: str, quantization: str, options: Mapping[str, Any], *, on_cpu: bool
) -> ModelShape:
    """`shape` with the bytes that `engine` holds of its weights and keeps of each token."""
    if model_format != "pytorch" or engine not in CPU_TYPES:
        return shape
    bits = BITSANDBYTES_BITS.get(quantization)
    if bits is not None:
        return _packed(shape, bits)
    width = _type_bytes(engine, options) if on_cpu else None
    if width is None or width == shape.element_bytes == 2:
        return shape
    return replace(
        shape,
        weights_bytes=shape.weights_bytes * width // shape.element_bytes,
        linear_bytes=shape.linear_bytes * width // shape.element_bytes,
        linear_bits=width * 8,
        kv_bytes_per_token=shape.kv_bytes_per_token * width // 2,
        element_bytes=width,
    )


def _packed(shape: ModelShape, bits: float) -> ModelShape:
    """bitsandbytes packs the linear layers while it loads them; what is beside them has 16 bits then."""
    beside = (shape.weights_bytes - shape.linear_bytes) * 2 // shape.element_bytes if shape.linear_bytes else 0
    packed = int(shape.linear_bytes // shape.element_bytes * bits / 8)
    weights = beside + packed if shape.linear_bytes else shape.weights_bytes
    return replace(shape, weights_bytes=weights, linear_bytes=0, element_bytes=2, bitsandbytes=True)


def _type_bytes(engine: str, options: Mapping[str, Any]) -> int | None:
    asked = str(options.get(TYPE_OPTIONS[engine]) or "auto").removeprefix("torch.")
    return TYPE_BYTES.get(CPU_TYPES[engine] if asked == "auto" else asked)
