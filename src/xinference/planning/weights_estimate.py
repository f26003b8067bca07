"""Estimates the size of weights that are not on disk yet: parameters times the bits per weight of a quantization."""

from __future__ import annotations

from xinference.catalog.models import ModelShapeFacts
from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.launch.model_shape import BITSANDBYTES_BITS, ModelShape

#: Bits per weight of whole GGUF and ggmlv3 files: the published file sizes of Llama-2 7B over its 6.738e9 parameters.
#: A K-quant stores some tensors in a wider type than its name indicates, and stores scales in addition to the weights.
GGML_BITS = {
    "q2_k": 3.36, "q3_k_s": 3.50, "q3_k_m": 3.92, "q3_k_l": 4.27, "q4_0": 4.54, "q4_1": 5.01, "q4_k_s": 4.58,
    "q4_k_m": 4.84, "q5_0": 5.52, "q5_1": 6.01, "q5_k_s": 5.52, "q5_k_m": 5.68, "q6_k": 6.56, "q8_0": 8.50,
    "iq4_nl": 4.53, "iq4_xs": 4.29, "mxfp4": 4.25, "f16": 16.0, "bf16": 16.0, "f32": 32.0,
}  # fmt: skip
#: Group size of GPTQ and AWQ: each group of weights has a 16-bit scale and a zero point as wide as a weight.
GROUP = 128


def weights_bytes(shape: ModelShapeFacts, model_format: str, quantization: str | None) -> int:
    """Bytes of the weights. `quantization` is case-insensitive; ``none`` or None means 16 bits, as trained.

    Raises:
        Problem: 400 ``unknown_quantization``.
    """
    name = (quantization or "none").lower().replace("-", "_" if model_format in ("ggufv2", "ggmlv3") else "-")
    if model_format in ("ggufv2", "ggmlv3"):
        if name not in GGML_BITS:
            raise _unknown(model_format, quantization, [*GGML_BITS])
        return int(shape.parameters * GGML_BITS[name] / 8)
    if name in ("none", "bf16", "fp16", "bfloat16", "float16"):
        return shape.parameters * 2
    # Quantizers of Hugging Face's formats do not quantize the two vocabulary matrices.
    outside = 2 * shape.vocab * shape.hidden
    bits = _linear_bits(model_format, name)
    if bits is None:
        raise _unknown(model_format, quantization, ["none", "4-bit", "8-bit"])
    return int((shape.parameters - outside) * bits / 8) + outside * 2


def kv_bytes_per_token(shape: ModelShapeFacts, bits: int = 16) -> int:
    """Bytes of one token's keys and values in all layers, each element `bits` wide; grouped heads share one entry."""
    return shape.layers * shape.kv_heads * shape.head_dim * 2 * bits // 8


def estimated_shape(
    shape: ModelShapeFacts, model_format: str, quantization: str | None, context_length: int
) -> ModelShape:
    """An estimate of the shape that the planner reads from the weights, from the registry alone.

    Raises:
        Problem: 400 ``unknown_quantization``.
    """
    size = weights_bytes(shape, model_format, quantization)
    whole = model_format == "pytorch" and (quantization or "none").lower() == "none"
    return ModelShape(
        weights_bytes=size,
        kv_bytes_per_token=kv_bytes_per_token(shape),
        trained_context=context_length,
        vocab_size=shape.vocab,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        layers=shape.layers,
        linear_bytes=size - 2 * shape.vocab * shape.hidden * 2 if whole else 0,
    )


def _linear_bits(model_format: str, name: str) -> float | None:
    width = name.removeprefix("int").removesuffix("-bit").removesuffix("bit")
    if model_format == "pytorch":
        return BITSANDBYTES_BITS.get(f"{width}-bit")
    if not width.isdecimal() or int(width) not in (2, 3, 4, 8):
        return None
    return int(width) + (16 + int(width)) / GROUP


def _unknown(model_format: str, quantization: str | None, known: list[str]) -> Exception:
    return bad_request(
        f"{model_format} has no quantization {quantization!r} of known size.",
        hint=f"Known quantizations: {', '.join(known)}.",
        code=Code.UNKNOWN_QUANTIZATION,
    )
