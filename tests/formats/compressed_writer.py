"""Folders in the packed forms of compressed-tensors, and with 8-bit floats, made by plain rounding.

Forms, from compressed-tensors' compressors (https://github.com/vllm-project/compressed-tensors): ``int-quantized`` and
``float-quantized`` store a layer's weight of N outputs and K inputs as [N, K] in 8 bits, with a scale for each output;
``pack-quantized`` packs eight neighbours along the inputs, plus 8, into a word [N, K / 8], with a scale for each group.
DeepSeek's ``fp8`` has a scale for each block of 128 x 128.
"""

from __future__ import annotations

import math
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.formats.int4_folder import Tensor, float16, int32, pack, quantize, values_of, write_folder

BLOCK = 128
#: The largest number of E4M3.
_TOP = 448.0
#: The positive numbers of E2M1 in the order of their codes.
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def write_int8(source: Path, out: Path) -> None:
    """W8A8: weights and activations are 8-bit integers."""
    write_folder(source, out, _config("int-quantized", {**_INT8, "strategy": "channel"}, _TOKEN_INT8), _int8)


def write_w4a16(source: Path, out: Path, group_size: int = 128) -> None:
    """Weights are 4-bit integers in groups, activations have 16 bits."""
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": group_size}

    def packed(layer: str, weight: Tensor) -> dict[str, Tensor]:
        outputs, inputs = weight.shape
        groups = quantize(values_of(weight), outputs, inputs, bits=4, symmetric=True, group_size=group_size)
        columns = [list(column) for column in zip(*groups.integers, strict=True)]
        return {
            f"{layer}.weight_packed": int32([pack(column, 4) for column in columns]),
            f"{layer}.weight_scale": float16([list(scales) for scales in zip(*groups.scales, strict=True)]),
            f"{layer}.weight_shape": Tensor("I64", (2,), struct.pack("<2q", outputs, inputs)),
        }

    write_folder(source, out, _config("pack-quantized", weights, None), packed)


def write_fp8(source: Path, out: Path) -> None:
    """8-bit floats with a scale for each output, in the form of compressed-tensors."""
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
    inputs = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}
    write_folder(source, out, _config("float-quantized", weights, inputs), _fp8)


def write_fp8_tensors(source: Path, out: Path) -> None:
    """8-bit floats with one scale for each tensor, in the form of compressed-tensors."""
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor"}
    inputs = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": True}
    write_folder(source, out, _config("float-quantized", weights, inputs), _fp8_tensor)


def write_fp8_blocks(source: Path, out: Path) -> None:
    """8-bit floats with a scale for each block of 128 x 128."""
    config = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]}
    write_folder(source, out, config, _fp8_blocks)


def write_nvfp4(source: Path, out: Path) -> None:
    """4-bit floats with an 8-bit float for each 16 weights and one scale for the layer; activations have 16 bits."""
    weights = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16}

    def packed(layer: str, weight: Tensor) -> dict[str, Tensor]:
        outputs, inputs = weight.shape
        values = values_of(weight)
        whole = _TOP * _E2M1[-1] / (max(map(abs, values)) or 1.0)
        scales = [max(map(abs, values[i : i + 16])) / _E2M1[-1] * whole for i in range(0, len(values), 16)]
        stored = as_e4m3(scales)
        steps = [(scale or 1.0) / whole for scale in from_e4m3(stored)]
        return {
            f"{layer}.weight_packed": _e2m1(values, steps, outputs, inputs),
            f"{layer}.weight_scale": Tensor("F8_E4M3", (outputs, inputs // 16), stored),
            f"{layer}.weight_global_scale": Tensor("F32", (1,), struct.pack("<f", whole)),
        }

    write_folder(source, out, _config("nvfp4-pack-quantized", weights, None), packed)


def write_mxfp4(source: Path, out: Path) -> None:
    """4-bit floats with a power of two for each 32 weights; activations have 16 bits."""
    weights = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "group", "group_size": 32}

    def packed(layer: str, weight: Tensor) -> dict[str, Tensor]:
        outputs, inputs = weight.shape
        values = values_of(weight)
        most = [max(map(abs, values[i : i + 32])) or 1.0 for i in range(0, len(values), 32)]
        exponents = [max(-127, math.ceil(math.log2(each / _E2M1[-1]))) for each in most]
        return {
            f"{layer}.weight_packed": _e2m1(values, [2.0**each for each in exponents], outputs, inputs),
            f"{layer}.weight_scale": Tensor("U8", (outputs, inputs // 32), bytes(each + 127 for each in exponents)),
        }

    write_folder(source, out, _config("mxfp4-pack-quantized", weights, None), packed)


def _e2m1(values: array[float], steps: list[float], outputs: int, inputs: int) -> Tensor:
    """Two neighbours in a byte, the first in the lower half; each of `steps` is the scale of as many neighbours."""
    group = len(values) // len(steps)
    middles = [(left + right) / 2 for left, right in pairwise(_E2M1)]
    codes = [
        (8 if value < 0 else 0) | bisect_left(middles, abs(value) / steps[number // group])
        for number, value in enumerate(values)
    ]
    stored = bytes(low | high << 4 for low, high in zip(codes[::2], codes[1::2], strict=True))
    return Tensor("U8", (outputs, inputs // 2), stored)


def _config(form: str, weights: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {**weights, "dynamic": False}, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
    }


_INT8: Mapping[str, Any] = {"num_bits": 8, "type": "int", "symmetric": True}
_TOKEN_INT8: Mapping[str, Any] = {**_INT8, "strategy": "token", "dynamic": True}


def _int8(layer: str, weight: Tensor) -> dict[str, Tensor]:
    outputs, inputs = weight.shape
    groups = quantize(values_of(weight), outputs, inputs, bits=8, symmetric=True, group_size=inputs)
    stored = bytes((row[output] - 128) & 0xFF for output in range(outputs) for row in groups.integers)
    return {
        f"{layer}.weight": Tensor("I8", (outputs, inputs), stored),
        f"{layer}.weight_scale": float32([[scale] for scale in groups.scales[0]]),
    }


def _fp8(layer: str, weight: Tensor) -> dict[str, Tensor]:
    outputs, inputs = weight.shape
    values = values_of(weight)
    rows = [values[output * inputs : (output + 1) * inputs] for output in range(outputs)]
    scales = [_scale(row) for row in rows]
    stored = b"".join(as_e4m3(value / scale for value in row) for row, scale in zip(rows, scales, strict=True))
    return {
        f"{layer}.weight": Tensor("F8_E4M3", (outputs, inputs), stored),
        f"{layer}.weight_scale": float32([[scale] for scale in scales]),
    }


def _fp8_tensor(layer: str, weight: Tensor) -> dict[str, Tensor]:
    values = values_of(weight)
    scale = _scale(values)
    stored = as_e4m3(value / scale for value in values)
    return {
        f"{layer}.weight": Tensor("F8_E4M3", weight.shape, stored),
        f"{layer}.weight_scale": Tensor("F32", (1,), struct.pack("<f", scale)),
    }


def _fp8_blocks(layer: str, weight: Tensor) -> dict[str, Tensor]:
    outputs, inputs = weight.shape
    values = values_of(weight)
    rows, columns = -(-outputs // BLOCK), -(-inputs // BLOCK)
    most = [[0.0] * columns for _ in range(rows)]
    for output in range(outputs):
        for column in range(columns):
            start = output * inputs + column * BLOCK
            part = values[start : start + min(BLOCK, inputs - column * BLOCK)]
            most[output // BLOCK][column] = max(most[output // BLOCK][column], max(map(abs, part)))
    scales = [[(value / _TOP) or 1.0 for value in row] for row in most]
    stored = as_e4m3(
        values[output * inputs + input_] / scales[output // BLOCK][input_ // BLOCK]
        for output in range(outputs)
        for input_ in range(inputs)
    )
    return {
        f"{layer}.weight": Tensor("F8_E4M3", (outputs, inputs), stored),
        f"{layer}.weight_scale_inv": float32(scales),
    }


def float32(rows: list[list[float]]) -> Tensor:
    flat = [value for row in rows for value in row]
    return Tensor("F32", (len(rows), len(rows[0])), struct.pack(f"<{len(flat)}f", *flat))


def as_e4m3(values: Any) -> bytes:
    """The nearest 8-bit floats (4 bits of exponent, 3 of fraction, no infinities)."""
    numbers, halves = _positive()
    return bytes((0x80 if value < 0 else 0) | bisect_left(halves, min(abs(value), numbers[-1])) for value in values)


def from_e4m3(stored: bytes) -> list[float]:
    """The numbers of 8-bit floats."""
    numbers, _ = _positive()
    return [-numbers[byte & 0x7F] if byte & 0x80 else numbers[byte & 0x7F] for byte in stored]


@cache
def _positive() -> tuple[list[float], list[float]]:
    """Every positive number in the order of its code, and the middle between each and the next one."""
    numbers = []
    for code in range(0x7F):  # 0x7F is no number
        exponent, fraction = code >> 3, code & 7
        numbers.append(fraction / 8 * 2.0**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7))
    return numbers, [(left + right) / 2 for left, right in pairwise(numbers)]


def _scale(row: array[float]) -> float:
    return max(map(abs, row)) / _TOP or 1.0


#: Name of a packed form -> its writer, and its format and quantization in launches.
WRITERS: Mapping[str, tuple[Callable[[Path, Path], None], str, str]] = {
    "W8A8": (write_int8, "pytorch", "Int8"),
    "W4A16": (write_w4a16, "pytorch", "Int4"),
    "fp8": (write_fp8, "fp8", "FP8"),
    "fp8 of tensors": (write_fp8_tensors, "fp8", "FP8"),
    "fp8 in blocks": (write_fp8_blocks, "fp8", "FP8"),
    "NVFP4": (write_nvfp4, "fp4", "NVFP4"),
    "MXFP4": (write_mxfp4, "fp4", "MXFP4"),
}
