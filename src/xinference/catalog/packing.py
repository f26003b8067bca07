"""How packed weights are stored: the scheme that an engine's kernels must compute, and the names in launches."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

PackedFormat = Literal["pytorch", "gptq", "awq", "fp8", "fp4", "bnb", "mlx"]


class Scheme(StrEnum):
    """What an engine's kernels must compute: ``W4A16`` has weights of 4 and activations of 16 bits."""

    GPTQ = "GPTQ"
    AWQ = "AWQ"
    FP8 = "8-bit floats with one scale for each tensor"
    FP8_BLOCK = "8-bit floats in blocks"
    FP8_CHANNELS = "8-bit floats with a scale for each channel"
    FP8_WEIGHTS = "8-bit floats with activations of 16 bits"
    MXFP8 = "MXFP8"
    INT8 = "int8 W8A8"
    W4A16 = "int4 W4A16"
    W8A16 = "int8 W8A16"
    W4A8 = "int4 W4A8"
    W4AFP8 = "int4 with activations of 8-bit floats"
    NVFP4 = "NVFP4"
    MXFP4 = "MXFP4"
    BITSANDBYTES = "bitsandbytes"
    MLX = "MLX"
    OTHER = "other"


@dataclass(frozen=True)
class Packing:
    """The packing of a folder's linear weights."""

    method: str
    """``quant_method``, in lower case."""
    scheme: Scheme
    bits: float
    """Bits of one weight, with the scales of its group."""
    model_format: PackedFormat
    """The format in launches."""
    quantization: str
    """The quantization in launches: ``Int4``, ``FP8``; of `Scheme.OTHER`, the method."""
    stated: bool = True
    """Whether a configuration states it; False: only the types of the tensors show it, and an engine can't know."""

    @property
    def title(self) -> str:
        """The packing in a sentence."""
        return self.method if self.scheme is Scheme.OTHER else str(self.scheme)


def possible_schemes(model_format: str, quantization: str) -> tuple[Scheme, ...]:
    """The schemes that weights of these names may have, before their configuration is read; empty: they say nothing.

    GPTQ and AWQ have their own rules, by their number of bits.
    """
    name = quantization.lower()
    if model_format == "fp8":
        return (Scheme.FP8_BLOCK, Scheme.FP8, Scheme.FP8_CHANNELS, Scheme.FP8_WEIGHTS, Scheme.MXFP8)
    if model_format == "fp4":
        return (Scheme.MXFP4,) if "mx" in name else (Scheme.NVFP4,) if "nv" in name else (Scheme.NVFP4, Scheme.MXFP4)
    if model_format == "bnb":
        return (Scheme.BITSANDBYTES,)
    if model_format == "pytorch":
        return {
            "int8": (Scheme.INT8, Scheme.W8A16),
            "int4": (Scheme.W4A16, Scheme.W4A8, Scheme.W4AFP8),
            "fp8": (Scheme.FP8,),  # while the weights are loaded
        }.get(name, ())
    return ()
