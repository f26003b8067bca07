"""Folders with the headers of real models: every tensor has its true shape, and the weights are holes in the file."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

RECORDED: Mapping[str, Any] = json.loads(
    (Path(__file__).parent / "recorded" / "shapes.json").read_text(encoding="utf-8")
)
Shape = tuple[int, ...]
#: Type and shape of one stored tensor.
Stored = tuple[str, Shape]
_BITS = {"BF16": 16, "F16": 16, "F32": 32, "I32": 32, "I8": 8, "U8": 8, "F8_E4M3": 8}


def _whole(shape: Shape) -> list[Stored]:
    return [("BF16", shape)]


def _gptq(bits: int) -> Callable[[Shape], list[Stored]]:
    def packed(shape: Shape) -> list[Stored]:
        outputs, inputs, groups = math.prod(shape[:-1]), shape[-1], -(-shape[-1] // 128)
        each = 32 // bits
        return [
            ("I32", (inputs // each, outputs)), ("I32", (groups, outputs // each)), ("F16", (groups, outputs)),
            ("I32", (inputs,)),
        ]  # fmt: skip

    return packed


def _awq(shape: Shape) -> list[Stored]:
    outputs, inputs, groups = math.prod(shape[:-1]), shape[-1], -(-shape[-1] // 128)
    return [("I32", (inputs, outputs // 8)), ("I32", (groups, outputs // 8)), ("F16", (groups, outputs))]


def _w4a16(shape: Shape) -> list[Stored]:
    outputs, inputs = math.prod(shape[:-1]), shape[-1]
    return [("I32", (outputs, inputs // 8)), ("BF16", (outputs, -(-inputs // 128)))]


def _int8(shape: Shape) -> list[Stored]:
    return [("I8", shape), ("BF16", (math.prod(shape[:-1]), 1))]


def _fp8_blocks(shape: Shape) -> list[Stored]:
    return [("F8_E4M3", shape), ("F32", (*shape[:-2], -(-shape[-2] // 128), -(-shape[-1] // 128)))]


def _nvfp4(shape: Shape) -> list[Stored]:
    outputs, inputs = math.prod(shape[:-1]), shape[-1]
    return [("U8", (outputs, inputs // 2)), ("F8_E4M3", (outputs, inputs // 16)), ("F32", (1,)), ("F32", (1,))]


def _mxfp4(shape: Shape) -> list[Stored]:
    outputs, inputs = math.prod(shape[:-1]), shape[-1]
    return [("U8", (outputs, inputs // 2)), ("U8", (outputs, inputs // 32))]


def _bitsandbytes(shape: Shape) -> list[Stored]:
    # The scales of the blocks are packed, too: 8 bits each, and 32 bits for 256 of them.
    elements = math.prod(shape)
    return [("U8", (elements // 2, 1)), ("U8", (elements // 64,)), ("F32", (-(-elements // (64 * 256)),))]


def _group(bits: int, kind: str, inputs: Any = None, **weights: Any) -> dict[str, Any]:
    fields = {"weights": {"num_bits": bits, "type": kind, **weights}, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": fields}}


#: Packing -> how a linear layer is stored, and the quantization_config.
PACKINGS: Mapping[str, tuple[Callable[[Shape], list[Stored]], dict[str, Any] | None]] = {
    "none": (_whole, None),
    "GPTQ Int4": (_gptq(4), {"quant_method": "gptq", "bits": 4, "group_size": 128}),
    "GPTQ Int8": (_gptq(8), {"quant_method": "gptq", "bits": 8, "group_size": 128}),
    "AWQ": (_awq, {"quant_method": "awq", "bits": 4, "group_size": 128}),
    "W4A16": (_w4a16, _group(4, "int", group_size=128)),
    "W8A8": (_int8, _group(8, "int", {"num_bits": 8, "type": "int"})),
    "fp8": (_fp8_blocks, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "NVFP4": (_nvfp4, {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
    "MXFP4": (_mxfp4, {"quant_method": "mxfp4"}),
    "bitsandbytes": (
        _bitsandbytes,
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True},
    ),
}


def stored_tensors(model: str, packing: str) -> Iterator[Stored]:
    """Every tensor of a model in this packing. MXFP4 packs experts only, as in the model that has it."""
    packed, _ = PACKINGS[packing]
    kinds = ("experts",) if packing == "MXFP4" else ("experts", "linear")
    for entry in RECORDED[model]["tensors"]:
        # A 3-dimensional weight of experts has its inputs in the middle or at the end: its bytes are the same.
        each = packed(tuple(entry["shape"])) if entry["kind"] in kinds else _whole(tuple(entry["shape"]))
        for _ in range(entry["count"]):
            yield from each


def size_of(stored: Stored) -> int:
    kind, shape = stored
    return math.prod(shape) * _BITS[kind] // 8


def write_headers(model: str, packing: str, folder: Path) -> int:
    """Write config.json and a file with the model's header; returns the bytes of its tensors."""
    folder.mkdir(parents=True)
    config = dict(RECORDED[model]["config"])
    if (quantization := PACKINGS[packing][1]) is not None:
        config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    header, end = {}, 0
    for number, (kind, shape) in enumerate(stored_tensors(model, packing)):
        size = size_of((kind, shape))
        header[f"tensor.{number}"] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)  # a hole: it takes no space on the disk
    return end
