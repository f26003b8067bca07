"""How many bytes weights take before their files are here: parameters times the bits that a quantization really has."""

from __future__ import annotations

from xinference.catalog.models import ModelShapeFacts
from xinference.errors import bad_request
from xinference.launch.model_shape import BITSANDBYTES_BITS, ModelShape

#: Bits per weight of whole GGUF and ggmlv3 files, by Llama-2 7B's published file sizes over its 6.738e9 parameters:
#: a K-quant stores some tensors in a wider type than its name says, and scales beside the weights.
GGML_BITS = {
    "q2_k": 3.36, "q3_k_s": 3.50, "q3_k_m": 3.92, "q3_k_l": 4.27, "q4_0": 4.54, "q4_1": 5.01, "q4_k_s": 4.58,
    "q4_k_m": 4.84, "q5_0": 5.52, "q5_1": 6.01, "q5_k_s": 5.52, "q5_k_m": 5.68, "q6_k": 6.56, "q8_0": 8.50,
    "iq4_nl": 4.53, "iq4_xs": 4.29, "mxfp4": 4.25, "f16": 16.0, "bf16": 16.0, "f32": 32.0,
}  # fmt: skip
#: GPTQ and AWQ keep one 16-bit scale and one zero point of the weights' own width for each group of this many.
GROUP = 128


def weights_bytes(shape: ModelShapeFacts, model_format: str, quantization: str | None) -> int:
    """Bytes of the weights; any case, and ``none`` or nothing for weights as they were trained (16 bits).

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
    # Quantizers of Hugging Face's formats leave the two vocabulary matrices as they were.
    outside = 2 * shape.vocab * shape.hidden
    bits = _linear_bits(model_format, name)
    if bits is None:
        raise _unknown(model_format, quantization, ["none", "4-bit", "8-bit"])
    return int((shape.parameters - outside) * bits / 8) + outside * 2


def kv_bytes_per_token(shape: ModelShapeFacts, bits: int = 16) -> int:
    """Bytes of one token's keys and values in all layers, each element `bits` wide; grouped heads are kept once."""
    return shape.layers * shape.kv_heads * shape.head_dim * 2 * bits // 8


def estimated_shape(
    shape: ModelShapeFacts, model_format: str, quantization: str | None, context_length: int
) -> ModelShape:
    """What the planner would read in the weights, from the registry alone.

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
        f"{model_format} has no quantization {quantization!r} whose size is known.",
        hint=f"There are: {', '.join(known)}.",
        code="unknown_quantization",
    )
