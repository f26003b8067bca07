"""Reads the header of a safetensors file: names, types, shapes and offsets of its tensors.

Format: https://huggingface.co/docs/safetensors#format: 8 bytes of length, that much JSON, then the tensors' bytes.
Weights are never read, and the content of the header is not trusted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from xinference.errors import Problem
from xinference.formats.cursor import bad_weight_file
from xinference.formats.sniff import SNIFF_BYTES, describe
from xinference.formats.weight_file import weight_file

T = TypeVar("T")
#: Maximum header size in bytes that the safetensors library itself reads.
MAX_HEADER = 100_000_000
#: Maximum number of tensors in one file, which bounds the time of the check; the largest models have 10^5 in all files.
MAX_TENSORS = 1 << 18
_MAX_RANK = 16
#: Bits of one element.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_WANTED = "the .safetensors file itself"
_DOWNLOAD_AGAIN = "Delete the file and download it again."


class _Entry(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


@dataclass(frozen=True)
class SafetensorsHeader:
    """The header of a safetensors file: only its tensors."""

    path: Path
    file_size: int
    """Bytes."""
    tensor_count: int
    bytes_by_type: Mapping[str, int]
    """Element type (``BF16``) -> bytes."""
    metadata: Mapping[str, str]

    @property
    def weights_bytes(self) -> int:
        return sum(self.bytes_by_type.values())


def read_safetensors(path: Path) -> SafetensorsHeader:
    """Read and check the header of the safetensors file at `path`.

    Raises:
        Problem: 400 ``bad_weight_file``: missing, unreadable, truncated, damaged, or another format; names the
            file and the fault.
    """
    with weight_file(path, _WANTED) as (file, size):
        return read_safetensors_of(file, size, path)


def read_safetensors_of(file: BinaryIO, size: int, path: Path) -> SafetensorsHeader:
    """The same of an open file of `size` bytes, which may be one on a hub.

    Raises:
        Problem: as `read_safetensors`.
    """
    metadata, entries = _read_entries(file, size, path)
    by_type: dict[str, int] = {}
    for entry in entries.values():
        by_type[entry.dtype] = by_type.get(entry.dtype, 0) + entry.data_offsets[1] - entry.data_offsets[0]
    return SafetensorsHeader(path, size, len(entries), by_type, metadata)


def read_tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in the safetensors file at `path`, by its name.

    Raises:
        Problem: as `read_safetensors`.
    """
    with weight_file(path, _WANTED) as (file, size):
        return {name: entry.shape for name, entry in _read_entries(file, size, path)[1].items()}


def read_part_bytes(path: Path, modules: Collection[str]) -> int:
    """Bytes of the tensors in the safetensors file at `path` that are inside of modules with one of these names.

    Raises:
        Problem: as `read_safetensors`.
    """
    with weight_file(path, _WANTED) as (file, size):
        entries = _read_entries(file, size, path)[1]
    inside = [entry for name, entry in entries.items() if not set(modules).isdisjoint(name.split(".")[:-1])]
    return sum(entry.data_offsets[1] - entry.data_offsets[0] for entry in inside)


def _read_entries(file: BinaryIO, size: int, path: Path) -> tuple[dict[str, str], dict[str, _Entry]]:
    """The metadata of the file and its tensors, all of them checked."""
    raw = _read_raw(file, path, size)
    fields = _decode(path, raw, dict[str, msgspec.Raw])
    if len(fields) > MAX_TENSORS:
        cause = f"is damaged: its header has {len(fields):,} entries, and the maximum is {MAX_TENSORS:,}"
        raise bad_weight_file(path, cause, _DOWNLOAD_AGAIN)
    metadata = _decode(path, fields.pop("__metadata__", msgspec.Raw(b"{}")), dict[str, str])
    entries = {name: _decode(path, field, _Entry, name) for name, field in fields.items()}
    _check(path, entries, size - 8 - len(raw))
    return metadata, entries


def _read_raw(file: BinaryIO, path: Path, size: int) -> bytes:
    head = file.read(SNIFF_BYTES)
    length = int.from_bytes(head[:8], "little")
    if len(head) < 9 or head[8:9] != b"{" or length > MAX_HEADER:
        raise _other_format(path, head, size, length)
    if length > size - 8:
        raise bad_weight_file(path, f"is truncated: its header has {length} bytes, the file {size}", _DOWNLOAD_AGAIN)
    file.seek(8)
    raw = b""
    while len(raw) < length and (chunk := file.read(length - len(raw))):
        raw += chunk
    if len(raw) < length:
        raise bad_weight_file(path, "became shorter while it was read", _DOWNLOAD_AGAIN)
    return raw


def _other_format(path: Path, head: bytes, size: int, length: int) -> Problem:
    if head[8:9] == b"{":
        cause = f"is damaged: its header claims {length} bytes, and the maximum is {MAX_HEADER}"
        return bad_weight_file(path, cause, _DOWNLOAD_AGAIN)
    if head.startswith(b"GGUF"):
        return bad_weight_file(path, "is not safetensors but GGUF", "Rename it with the suffix .gguf.")
    description = describe(head, size)
    return bad_weight_file(path, description.what.replace("is not GGUF", "is not safetensors"), description.hint)


def _decode(path: Path, data: bytes | msgspec.Raw, kind: type[T], name: str | None = None) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        where = f"tensor {name!r:.80}" if name is not None else "its header"
        raise bad_weight_file(path, f"is damaged: {where} cannot be read ({error})", _DOWNLOAD_AGAIN) from None


def _check(path: Path, entries: Mapping[str, _Entry], data_size: int) -> None:
    """Check that the tensors are contiguous up to the file's end, and that each size matches its shape."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        first, last = entry.data_offsets
        bits = _BITS.get(entry.dtype, 0)
        possible = bits and len(entry.shape) <= _MAX_RANK and all(0 <= n < 1 << 48 for n in entry.shape)
        if not possible or 8 * (last - first) != bits * math.prod(entry.shape):
            what = f"{last - first} bytes of {entry.dtype:.20} for the shape {list(entry.shape)!s:.80}"
            raise bad_weight_file(path, f"is damaged: tensor {name!r:.80} has {what}", _DOWNLOAD_AGAIN)
        if first != end:
            raise bad_weight_file(
                path, f"is damaged: tensor {name!r:.80} begins at {first} instead of {end}", _DOWNLOAD_AGAIN
            )
        end = last
    if end != data_size:
        kind = "truncated" if end > data_size else "damaged"
        raise bad_weight_file(
            path, f"is {kind}: its tensors need {end} bytes, and the file has {data_size}", _DOWNLOAD_AGAIN
        )
