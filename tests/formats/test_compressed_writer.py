"""The writers of packed folders: what is read back is what was written, within the step of the rounding."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.formats.compressed_writer import WRITERS, as_e4m3, from_e4m3
from tests.formats.int4_folder import Tensor, read_tensors, unpack, values_of, words
from xinference.formats.safetensors import read_safetensors
from xinference.local_commands.inspect import inspect

ASSETS = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
LAYER = "model.layers.1.mlp.down_proj"


def floats(tensor: Tensor) -> list[float]:
    return list(struct.unpack(f"<{len(tensor.data) // 4}f", tensor.data))


def unpacked(tensors: dict[str, Tensor]) -> list[float]:
    """The first row of the layer's weight."""
    packed = tensors.get(f"{LAYER}.weight_packed")
    if packed is not None and packed.dtype == "U8":
        return four_bit_floats(tensors, packed)
    if packed is not None:
        row = unpack(words(packed)[0], 4)
        halves = values_of(tensors[f"{LAYER}.weight_scale"])
        return [halves[i // 128] * (value - 8) for i, value in enumerate(row)]
    weight = tensors[f"{LAYER}.weight"]
    inputs = weight.shape[1]
    if weight.dtype == "I8":
        scale = floats(tensors[f"{LAYER}.weight_scale"])[0]
        return [scale * value for value in struct.unpack(f"<{inputs}b", weight.data[:inputs])]
    if f"{LAYER}.weight_scale" in tensors:
        scale = floats(tensors[f"{LAYER}.weight_scale"])[0]
        return [scale * value for value in from_e4m3(weight.data[:inputs])]
    scales = floats(tensors[f"{LAYER}.weight_scale_inv"])
    return [scales[i // 128] * value for i, value in enumerate(from_e4m3(weight.data[:inputs]))]


def four_bit_floats(tensors: dict[str, Tensor], packed: Tensor) -> list[float]:
    numbers = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    codes = [code for byte in packed.data[: packed.shape[1]] for code in (byte & 15, byte >> 4)]
    values = [-numbers[code & 7] if code & 8 else numbers[code & 7] for code in codes]
    scale = tensors[f"{LAYER}.weight_scale"]
    if scale.dtype == "U8":
        return [2.0 ** (scale.data[i // 32] - 127) * value for i, value in enumerate(values)]
    whole = floats(tensors[f"{LAYER}.weight_global_scale"])[0]
    return [from_e4m3(scale.data[i // 16 : i // 16 + 1])[0] / whole * value for i, value in enumerate(values)]


def test_eight_bit_floats_are_the_nearest() -> None:
    numbers = [0.0, 0.001953125, 1.0, 1.0625, 1.06, -448.0, 1000.0, 0.4]
    assert from_e4m3(as_e4m3(numbers)) == [0.0, 0.001953125, 1.0, 1.0, 1.0, -448.0, 448.0, 0.40625]


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.thorough
def test_a_folder_has_the_weights_and_is_recognised(tmp_path: Path, form: str) -> None:
    write, model_format, quantization = WRITERS[form]
    write(ASSETS, tmp_path / "out")
    first = values_of(read_tensors(ASSETS / "model.safetensors")[f"{LAYER}.weight"])
    read = unpacked(read_tensors(tmp_path / "out" / "model.safetensors"))
    most = max(map(abs, first[: len(read)]))
    assert max(abs(left - right) for left, right in zip(first, read, strict=False)) <= most / (
        5 if "FP4" in form else 8 if "4" in form else 14
    )
    assert read_safetensors(tmp_path / "out" / "model.safetensors").tensor_count > 10
    report = inspect(str(tmp_path / "out"))
    assert (report["model_format"], report["quantization"]) == (model_format, quantization)
