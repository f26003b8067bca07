"""Estimates the weights that are not on disk yet, from the shape in the registry or from the size alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from xinference.catalog.models import ModelShapeFacts, ModelVersion, billions
from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.launch.model_shape import BITSANDBYTES_BITS, LOADING_BITS, ModelShape
from xinference.planning.gguf_makers import are_early
from xinference.planning.gguf_sizes import MAIN_TYPES, gguf_bytes_by_type, vocabulary_elements

#: Bits of a weight in a whole file, of mixes whose tensors have many types: llama.cpp's table for a model of 8B.
_AVERAGE_BITS = {
    "iq1_s": 2.0, "iq1_m": 2.15, "iq2_xxs": 2.38, "iq2_xs": 2.59, "iq2_s": 2.74, "iq2_m": 2.93, "iq3_xxs": 3.25,
    "iq3_xs": 3.5, "iq3_s": 3.66, "iq3_m": 3.76, "iq4_xs": 4.46, "iq4_nl": 4.68, "q2_k": 3.16, "q2_k_s": 2.97,
    "q2_k_l": 3.2, "q2_k_xl": 3.2, "q3_k_s": 3.64, "q3_k_m": 4.0, "q3_k_l": 4.3, "q3_k_xl": 4.1, "q4_k_s": 4.67,
    "q4_k_m": 4.89, "q4_k_l": 5.0, "q4_k_xl": 5.0, "q5_k_s": 5.57, "q5_k_m": 5.7, "q5_k_l": 5.8, "q5_k_xl": 5.8,
    "q6_k": 6.56, "q6_k_l": 6.6, "q6_k_xl": 7.0, "q8_0": 8.5, "q8_k_xl": 9.0, "mxfp4_moe": 4.6, "mxfp4": 4.6,
    "nvfp4": 4.8, "tq1_0": 1.9, "tq2_0": 2.3, "q1_0": 1.4, "q2_0": 2.5, "q4_0": 4.6, "q4_1": 5.1, "q5_0": 5.6,
    "q5_1": 6.1,
}  # fmt: skip
#: Group size of GPTQ and AWQ: each group of weights has a 16-bit scale and a zero point as wide as a weight.
GROUP = 128
#: Bits of a weight of a format, with the scales of its blocks.
_FLOAT_BITS = {"fp8": 8.02, "fp4": 4.5}
#: Billions of parameters -> layers and width of a usual model of this size, for models whose shape is not known.
_USUAL = (
    (0.2, 24, 768), (0.7, 24, 1024), (1.3, 20, 2048), (2.2, 28, 2048), (4.5, 34, 2880), (10, 34, 4096),
    (16, 44, 5120), (40, 62, 5120), (90, 80, 8192), (200, 94, 6144), (1000, 110, 12288),
)  # fmt: skip
#: Width of the keys of a usual model with grouped heads: eight heads of 128.
_USUAL_KEYS = 1024
_USUAL_VOCAB = 128_000


def weights_bytes(shape: ModelShapeFacts, model_format: str, quantization: str | None, *, early: bool = False) -> int:
    """Bytes of the weights. `quantization` is case-insensitive; ``none`` or None means 16 bits, as trained.

    Args:
        early: whether the GGUF file is of 2023; see `gguf_makers.are_early`.

    Raises:
        Problem: 400 ``unknown_quantization``.
    """
    name = _canonical(model_format, quantization)
    if model_format in ("ggufv2", "ggmlv3"):
        if name not in MAIN_TYPES:
            raise _unknown(model_format, quantization, [*MAIN_TYPES])
        return sum(gguf_bytes_by_type(shape, name, early=early).values())
    if name in ("bf16", "fp16", "bfloat16", "float16") or (name == "none" and model_format not in _FLOAT_BITS):
        return shape.parameters * 2
    # Quantizers of Hugging Face's formats do not quantize the vocabulary's matrices.
    outside = vocabulary_elements(shape)
    bits = _linear_bits(model_format, name)
    if bits is None:
        raise _unknown(model_format, quantization, ["none", "4-bit", "8-bit"])
    return int((shape.parameters - outside) * bits / 8) + outside * 2


def kv_bytes_per_token(shape: ModelShapeFacts, bits: int = 16) -> int:
    """Bytes of one token's keys and values in all layers, each element `bits` wide; grouped heads share one entry.

    Latent attention stores one vector in place of the keys and values of all heads; linear attention stores nothing for
    a token.
    """
    layers = shape.layers // shape.full_attention_interval
    return layers * (shape.latent_dim or shape.kv_heads * shape.head_dim * 2) * bits // 8


def estimated_shape(
    shape: ModelShapeFacts, model_format: str, quantization: str | None, context_length: int, *, early: bool = False
) -> ModelShape:
    """An estimate of the shape that the planner reads from the weights, from the registry alone.

    Its weights are those that an engine loads: bitsandbytes has packed them already.

    Raises:
        Problem: 400 ``unknown_quantization``.
    """
    size = weights_bytes(shape, model_format, quantization, early=early)
    whole = model_format == "pytorch" and (quantization or "none").lower() == "none"
    return _with_weights(
        shape, size, context_length, linear_bytes=size - vocabulary_elements(shape) * 2 if whole else 0
    )


def registry_shape(shape: ModelShapeFacts, version: ModelVersion, file_bytes: int | None = None) -> ModelShape:
    """An estimate of the shape of the stored weights of a version; an engine can pack them while it loads them.

    Args:
        file_bytes: the bytes of the weight file, if they are known.

    Raises:
        Problem: 400 ``unknown_quantization``.
    """
    model_format, quantization = version.spec.model_format, version.quantization
    context = version.family.context_length
    if model_format in ("ggufv2", "ggmlv3"):
        name, early = _canonical(model_format, quantization), are_early(version)
        if name not in MAIN_TYPES:  # a mix of another quantizer, such as UD-Q4_K_XL
            size = file_bytes or int(shape.parameters * rough_bits(model_format, quantization) / 8)
            return _with_weights(shape, size, context)
        by_type = gguf_bytes_by_type(shape, name, early=early)
        return _with_weights(shape, file_bytes or sum(by_type.values()), context, by_type=by_type)
    packs_later = model_format == "pytorch" and quantization in LOADING_BITS
    size = file_bytes or weights_bytes(shape, model_format, None if packs_later else quantization)
    linear = max(0, size - vocabulary_elements(shape) * 2)
    packed = None if model_format == "pytorch" else _linear_bits(model_format, _canonical(model_format, quantization))
    bits = int(packed or 16)
    return _with_weights(shape, size, context, linear_bytes=linear, linear_bits=bits)


def rough_shape(version: ModelVersion) -> ModelShape:
    """An estimate from the size and the bits of the quantization alone: the weights are rough, the cache is a guess."""
    size = billions(version.spec.model_size_in_billions)
    parameters = int(size * 1e9)
    layers, hidden = next(((layers, width) for limit, layers, width in _USUAL if size <= limit), _USUAL[-1][1:])
    element_bits = rough_bits(version.spec.model_format, version.quantization)
    has_cache = version.family.model_type == "LLM"
    return ModelShape(
        weights_bytes=int(parameters * element_bits / 8),
        kv_bytes_per_token=layers * min(hidden, _USUAL_KEYS) * 2 * 2 if has_cache else 0,
        trained_context=version.family.context_length,
        vocab_size=_USUAL_VOCAB,
        hidden=hidden,
        layers=layers,
    )


def rough_bits(model_format: str, quantization: str) -> float:
    """Bits of a weight by the name of a quantization, such as 4.8 for ``UD-Q4_K_XL``; 16 if the name has none."""
    name = _canonical(model_format, quantization)
    if model_format in ("ggufv2", "ggmlv3"):
        if name in ("f32", "fp32"):
            return 32.0
        known = _AVERAGE_BITS.get(name.removeprefix("ud_"))
        if known is not None:
            return known
        digits = re.search(r"(?:q|fp)(\d)(?!\d)", name)
        return int(digits[1]) + 0.85 if digits else 16.0
    return _linear_bits(model_format, name) or 16.0


def _with_weights(
    shape: ModelShapeFacts,
    size: int,
    context_length: int,
    *,
    by_type: Mapping[str, int] | None = None,
    linear_bytes: int = 0,
    linear_bits: int = 16,
) -> ModelShape:
    return ModelShape(
        weights_bytes=size,
        kv_bytes_per_token=kv_bytes_per_token(shape),
        trained_context=context_length,
        vocab_size=shape.vocab,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        layers=shape.layers,
        bytes_by_type=by_type or {},
        linear_bytes=linear_bytes,
        linear_bits=linear_bits,
    )


def _canonical(model_format: str, quantization: str | None) -> str:
    return (quantization or "none").lower().replace("-", "_" if model_format in ("ggufv2", "ggmlv3") else "-")


def _linear_bits(model_format: str, name: str) -> float | None:
    width = name.removeprefix("int").removesuffix("-bit").removesuffix("bit")
    if model_format == "pytorch":
        return LOADING_BITS.get(name) or LOADING_BITS.get(f"{width}-bit")
    if model_format == "bnb":
        return BITSANDBYTES_BITS.get(f"{width}-bit", BITSANDBYTES_BITS["4-bit"])
    if model_format in _FLOAT_BITS:
        return 4.25 if name.startswith("mx") else _FLOAT_BITS[model_format]
    if model_format in ("gptq", "awq"):
        width = _packed_width(model_format, name)
    if not width.isdecimal() or int(width) not in (2, 3, 4, 5, 6, 8):
        return _named_bits(name) if model_format == "mlx" else None
    return int(width) + (16 + int(width)) / GROUP


def _packed_width(model_format: str, name: str) -> str:
    """The number of bits in the name of a quantization: of most layers, if several have their own."""
    if model_format == "awq" and name.startswith("awq"):
        return "4"
    digits = re.match(r"(?:int)?(\d+)", name)
    return digits[1] if digits else ""


def _named_bits(name: str) -> float | None:
    """Bits of a weight of MLX by the number in the quantization's name, with its scales: 4.5 for ``mxfp4``."""
    digits = re.search(r"fp(\d+)", name)
    return (int(digits[1]) + 0.5 if int(digits[1]) < 16 else 16.0) if digits else None


def _unknown(model_format: str, quantization: str | None, known: Sequence[str]) -> Exception:
    return bad_request(
        f"{model_format} has no quantization {quantization!r} of known size.",
        hint=f"Known quantizations: {', '.join(known)}.",
        code=Code.UNKNOWN_QUANTIZATION,
    )
