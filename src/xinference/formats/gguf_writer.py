"""Writes the header of a GGUF file, version 3, little-endian; the caller writes the tensors' bytes.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

#: Alignment in bytes of the data and every tensor in it (GGUF's default, so it need not be written).
ALIGNMENT = 32
_VERSION = 3
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


@dataclass(frozen=True)
class NumberArray:
    """Contiguous little-endian 32-bit numbers."""

    kind: int
    """5 for signed integers, 6 for floats."""
    data: bytes

    @classmethod
    def of_floats(cls, values: Sequence[float]) -> NumberArray:
        return cls(_F32, struct.pack(f"<{len(values)}f", *values))

    @classmethod
    def of_integers(cls, values: Sequence[int]) -> NumberArray:
        return cls(_I32, struct.pack(f"<{len(values)}i", *values))


MetadataValue = bool | int | float | str | list[bytes] | NumberArray
"""An int is written as an unsigned 32-bit integer, a float as 32 bits; strings in a list need not be UTF-8."""


@dataclass(frozen=True)
class TensorInfo:
    """The table's entry of one tensor."""

    name: str
    shape: tuple[int, ...]
    """Row length first."""
    type: int
    """`enum ggml_type`."""
    size: int
    """Bytes, without padding."""


def padding(position: int) -> int:
    """Bytes from `position` to the next aligned position."""
    return -position % ALIGNMENT


def data_size(tensors: Iterable[TensorInfo]) -> int:
    """Bytes of the data section: the tensors one after the other, each padded."""
    return sum(tensor.size + padding(tensor.size) for tensor in tensors)


def write_header(file: BinaryIO, metadata: Mapping[str, MetadataValue], tensors: Sequence[TensorInfo]) -> None:
    """Write everything before the tensors' bytes; `file` is at its start.

    The tensors' bytes follow in the order of `tensors`, each padded to `ALIGNMENT`.

    Raises:
        OSError: it cannot be written.
        struct.error: a number does not fit into 32 bits.
    """
    file.write(b"GGUF" + struct.pack("<IQQ", _VERSION, len(tensors), len(metadata)))
    for key, value in metadata.items():
        file.write(_text(key.encode()))
        _write_value(file, value)
    offset = 0
    for tensor in tensors:
        rank = len(tensor.shape)
        file.write(_text(tensor.name.encode()))
        file.write(struct.pack(f"<I{rank}QIQ", rank, *tensor.shape, tensor.type, offset))
        offset += tensor.size + padding(tensor.size)
    file.write(bytes(padding(file.tell())))


def _text(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def _write_value(file: BinaryIO, value: MetadataValue) -> None:
    match value:
        case bool():
            file.write(struct.pack("<I?", _BOOL, value))
        case int():
            file.write(struct.pack("<II", _U32, value))
        case float():
            file.write(struct.pack("<If", _F32, value))
        case str():
            file.write(struct.pack("<I", _STRING) + _text(value.encode()))
        case NumberArray():
            file.write(struct.pack("<IIQ", _ARRAY, value.kind, len(value.data) // 4) + value.data)
        case list():
            file.write(struct.pack("<IIQ", _ARRAY, _STRING, len(value)))
            file.writelines(_text(item) for item in value)
