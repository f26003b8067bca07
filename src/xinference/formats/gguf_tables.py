"""Reads the two tables of a GGUF header, metadata and tensors, from an untrusted file with bounded memory.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from xinference.formats.cursor import Cursor
from xinference.formats.tensor_types import TENSOR_TYPES

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]

#: GGUF value types of fixed size, by number: uint8, int8, uint16, int16, uint32, int32, float32, bool, …
_SCALARS = {
    number: struct.Struct("<" + code)
    for number, code in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}
_STRING, _ARRAY = 8, 9

# Limits of header values, far above any real model: they bound time and memory.
_MAX_PAIRS = 4096
_MAX_TENSORS = 1 << 17
_MAX_NAME = 1024
_MAX_STRING = 1 << 20
_MAX_KEPT = 4 << 20
_MAX_KEPT_ELEMENTS = 1024
_DEFAULT_ALIGNMENT = 32
#: The beginning of the keys of chat templates, which llama.cpp parses whole.
_TEMPLATE = "tokenizer.chat_template"


def read_metadata(cursor: Cursor, count: int) -> tuple[dict[str, Value], dict[str, int]]:
    """Read `count` entries: the stored values, in at most 4 MiB, and the lengths of all arrays."""
    if count > _MAX_PAIRS:
        raise cursor.damaged(f"it claims {count} metadata entries, and the maximum is {_MAX_PAIRS}")
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    seen: set[str] = set()
    budget = _MAX_KEPT
    for index in range(count):
        key = _name(cursor, f"the key of metadata entry {index}")
        what = f"metadata {key!r}"
        if key in seen:
            raise cursor.damaged(f"{what} occurs twice, the second time before byte {cursor.position}")
        seen.add(key)
        kind = cursor.u32(f"the type of {what}")
        value: Value | None
        if kind == _ARRAY:
            lengths[key], value, cost = _array(cursor, what, budget)
        elif kind == _STRING:
            value, cost = _string(cursor, what, budget)
            if cost > _MAX_STRING and key.startswith(_TEMPLATE):
                raise cursor.damaged(
                    f"{what} claims {cost} bytes before byte {cursor.position}, "
                    f"and the maximum of a template is {_MAX_STRING}"
                )
        else:
            value, cost = _scalar(cursor, kind, what), 0
        if value is not None:
            values[key] = value
            budget -= cost
    return values, lengths


def _name(cursor: Cursor, what: str) -> str:
    length = cursor.u64(what)
    if length > _MAX_NAME:
        raise cursor.damaged(
            f"{what} before byte {cursor.position} claims {length} bytes, and the maximum is {_MAX_NAME}"
        )
    return cursor.take(length, what).decode("utf-8", "replace")


def _string(cursor: Cursor, what: str, budget: int) -> tuple[str | None, int]:
    """The text, None if it is too long to be stored, and its length in bytes."""
    length = cursor.u64(what)
    if length > min(_MAX_STRING, budget):
        cursor.skip(length, what)
        return None, length
    return cursor.take(length, what).decode("utf-8", "replace"), length


def _scalar(cursor: Cursor, kind: int, what: str) -> Scalar:
    layout = _SCALARS.get(kind)
    if layout is None:
        raise cursor.damaged(f"{what} has the unknown value type {kind} before byte {cursor.position}")
    value: Scalar = layout.unpack(cursor.take(layout.size, what))[0]
    return value


def _array(cursor: Cursor, what: str, budget: int) -> tuple[int, tuple[Scalar, ...] | None, int]:
    """Length, elements if they are few numbers, and the memory in bytes that they need."""
    kind = cursor.u32(f"the element type of {what}")
    length = cursor.u64(f"the length of {what}")
    if kind == _STRING:
        cursor.skip_strings(length, what)
        return length, None, 0
    layout = _SCALARS.get(kind)
    if layout is None:
        reason = (
            "has arrays as elements, which llama.cpp does not support"
            if kind == _ARRAY
            else f"has elements of unknown type {kind}"
        )
        raise cursor.damaged(f"{what} {reason}, before byte {cursor.position}")
    cost = 40 * length  # about the size of a Python number in a tuple
    if length > _MAX_KEPT_ELEMENTS or cost > budget:
        cursor.skip(layout.size * length, what)
        return length, None, 0
    data = cursor.take(layout.size * length, what)
    return length, tuple(value for (value,) in layout.iter_unpack(data)), cost


def _alignment(cursor: Cursor, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise cursor.damaged(f"general.alignment is {alignment!r}, which is not a power of two")
    return alignment


@dataclass(frozen=True)
class Tensors:
    """Totals of the tensor table."""

    total: int
    """Number of tensors."""
    bytes_by_type: dict[str, int]
    """Type's name -> bytes, without padding."""
    alignment: int
    data_offset: int
    """Bytes from the start of the file to the first tensor."""


def read_tensors(cursor: Cursor, count: int, metadata: Mapping[str, Value]) -> Tensors:
    """Read the tensor table and check that the file contains every tensor in it."""
    if count > _MAX_TENSORS:
        raise cursor.damaged(f"it claims {count} tensors, and the maximum is {_MAX_TENSORS}")
    alignment = _alignment(cursor, metadata)
    bytes_by_type: dict[str, int] = {}
    data_end = 0
    names: set[str] = set()
    for index in range(count):
        name = _name(cursor, f"the name of tensor {index}")
        if name in names:
            raise cursor.damaged(f"tensor {name!r} occurs twice, the second time before byte {cursor.position}")
        names.add(name)
        what = f"tensor {name!r}"
        type_name, size = _tensor_size(cursor, what)
        offset = cursor.u64(f"the offset of {what}")
        if offset % alignment:
            raise cursor.damaged(f"the offset of {what}, {offset}, is not a multiple of {alignment}")
        if offset < data_end:  # llama.cpp reads only tensors in the order of the table
            raise cursor.damaged(f"{what} begins at {offset}, before the end of the tensor before it, {data_end}")
        bytes_by_type[type_name] = bytes_by_type.get(type_name, 0) + size
        data_end = offset + size
    data_offset = -(-cursor.position // alignment) * alignment
    if data_end and data_offset + data_end > cursor.size:
        cursor.need(data_offset + data_end - cursor.position, "the tensors")
    return Tensors(count, bytes_by_type, alignment, data_offset)


def _tensor_size(cursor: Cursor, what: str) -> tuple[str, int]:
    """Type and bytes of a tensor, from its shape and type."""
    n_dims = cursor.u32(f"the rank of {what}")
    if n_dims > 4:
        raise cursor.damaged(f"{what} has {n_dims} dimensions before byte {cursor.position}, and ggml has at most 4")
    shape = struct.unpack(f"<{n_dims}Q", cursor.take(8 * n_dims, f"the shape of {what}"))
    number = cursor.u32(f"the type of {what}")
    tensor_type = TENSOR_TYPES.get(number)
    if tensor_type is None:
        raise cursor.damaged(f"{what} has the unknown or removed type {number} before byte {cursor.position}")
    elements = 1
    for dimension in shape:
        elements *= dimension
    row = shape[0] if shape else 1
    if elements == 0 or row % tensor_type.block:
        raise cursor.damaged(
            f"{what} has the shape {list(shape)}, and its type {tensor_type.name} needs rows of "
            f"whole blocks of {tensor_type.block} elements"
        )
    size = elements // tensor_type.block * tensor_type.block_bytes
    return tensor_type.name, size
