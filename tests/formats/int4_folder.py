"""A Hugging Face folder quantized in groups by rounding, which the GPTQ and AWQ writers pack each in their own way.

Pure Python: a tiny model has two million weights, and the tests of the server need neither numpy nor torch.
"""

from __future__ import annotations

import json
import shutil
import struct
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROUP_SIZE = 128
#: The projections of a llama block; embeddings, norms and the output stay as they are.
QUANTIZED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Tensor:
    """One stored tensor: safetensors' name of its type, its shape, and its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Groups:
    """A linear layer as integers: weight = scale * (integer - zero), all input-major.

    `integers` has a row for each input and a column for each output; `scales` and `zeros` a row for each group of
    inputs.
    """

    inputs: int
    outputs: int
    group_size: int
    integers: list[list[int]]
    scales: list[list[float]]
    zeros: list[list[int]]

    def weight(self, input_: int, output: int) -> float:
        group = input_ // self.group_size
        return self.scales[group][output] * (self.integers[input_][output] - self.zeros[group][output])


def quantize(values: array[float], outputs: int, inputs: int, *, bits: int, symmetric: bool, group_size: int) -> Groups:
    """Round a weight matrix, stored a row an output, to `bits` bits; each group of inputs has a scale and a zero.

    With `symmetric` the zero is the middle, as in GPTQ; otherwise it is where the group's least weight puts it.
    """
    top = (1 << bits) - 1
    columns: list[list[int]] = []
    scales = [[0.0] * outputs for _ in range(inputs // group_size)]
    zeros = [[0] * outputs for _ in range(inputs // group_size)]
    for output in range(outputs):
        row = values[output * inputs : (output + 1) * inputs]
        column: list[int] = []
        for group in range(inputs // group_size):
            part = row[group * group_size : (group + 1) * group_size]
            least, most = min(0.0, min(part)), max(0.0, max(part))
            span = 2 * max(-least, most) if symmetric else most - least
            scale = _as_half(span / top) or 1.0
            zero = (top + 1) // 2 if symmetric else min(top, max(0, round(-least / scale)))
            scales[group][output], zeros[group][output] = scale, zero
            rounded = [round(value / scale) + zero for value in part]
            column += [0 if value < 0 else top if value > top else value for value in rounded]
        columns.append(column)
    integers = [list(row) for row in zip(*columns, strict=True)]
    return Groups(inputs, outputs, group_size, integers, scales, zeros)


def pack(values: list[int], bits: int, order: tuple[int, ...] | None = None) -> list[int]:
    """Join neighbours into 32-bit words, the first in the lowest bits; `order` says which neighbour goes where."""
    each = 32 // bits
    words = [0] * (len(values) // each)
    for position, place in enumerate(order or range(each)):
        words = [word | value << bits * position for word, value in zip(words, values[place::each], strict=True)]
    return words


def unpack(words: list[int], bits: int, order: tuple[int, ...] | None = None) -> list[int]:
    """The inverse of `pack`."""
    each, mask = 32 // bits, (1 << bits) - 1
    places = order or tuple(range(each))
    values = [0] * (len(words) * each)
    for number, word in enumerate(words):
        for position, place in enumerate(places):
            values[number * each + place] = word >> (bits * position) & mask
    return values


def int32(rows: list[list[int]]) -> Tensor:
    """A matrix of 32-bit words; the highest bit is the sign's."""
    flat = [word for row in rows for word in row]
    return Tensor("I32", (len(rows), len(rows[0])), struct.pack(f"<{len(flat)}I", *flat))


def float16(rows: list[list[float]]) -> Tensor:
    flat = [value for row in rows for value in row]
    return Tensor("F16", (len(rows), len(rows[0])), struct.pack(f"<{len(flat)}e", *flat))


def words(tensor: Tensor) -> list[list[int]]:
    """A stored matrix of 32-bit words, row by row."""
    rows, columns = tensor.shape
    flat = struct.unpack(f"<{rows * columns}I", tensor.data)
    return [list(flat[row * columns : (row + 1) * columns]) for row in range(rows)]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    base = 8 + length
    return {
        name: Tensor(entry["dtype"], tuple(entry["shape"]), data[base + entry["data_offsets"][0] :][: _size(entry)])
        for name, entry in json.loads(data[8:base]).items()
        if name != "__metadata__"
    }


def values_of(tensor: Tensor) -> array[float]:
    """A stored F16 tensor as numbers."""
    assert tensor.dtype == "F16"
    return array("f", struct.unpack(f"<{len(tensor.data) // 2}e", tensor.data))


def write_folder(
    source: Path, out: Path, config: Mapping[str, Any], packed: Callable[[str, Tensor], dict[str, Tensor]]
) -> None:
    """Write `source` again with its projections replaced by what `packed` makes of them.

    `config` becomes config.json's ``quantization_config``.
    """
    out.mkdir(parents=True)
    for file in source.iterdir():
        if file.name not in ("config.json", "qa.json", "model.safetensors"):
            shutil.copy(file, out / file.name)
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    settings["quantization_config"] = dict(config)
    (out / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    tensors: dict[str, Tensor] = {}
    for name, tensor in read_tensors(source / "model.safetensors").items():
        layer = name.removesuffix(".weight")
        quantized = layer.rpartition(".")[2] in QUANTIZED
        tensors |= packed(layer, tensor) if quantized else {name: tensor}
    _write_tensors(out / "model.safetensors", tensors)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, tensor in tensors.items():
        end = place + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t.data for t in tensors.values()))


def _size(entry: Mapping[str, Any]) -> int:
    start, end = entry["data_offsets"]
    return int(end - start)


def _as_half(value: float) -> float:
    """Rounded to the half precision in which scales are stored."""
    half: float = struct.unpack("<e", struct.pack("<e", value))[0]
    return half
