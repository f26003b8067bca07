"""Writes GGUF files by hand, so that tests can also write wrong ones."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", UINT32: "I", INT32: "i", FLOAT32: "f", BOOL: "?", UINT64: "Q"}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: int, value: object) -> bytes:
    raw = text(str(value)) if kind == STRING else struct.pack("<" + _CODES[kind], value)
    return struct.pack("<I", kind) + raw


def array(kind: int, values: list[object]) -> bytes:
    items = b"".join(text(str(v)) if kind == STRING else struct.pack("<" + _CODES[kind], v) for v in values)
    return struct.pack("<IIQ", ARRAY, kind, len(values)) + items


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def llama_pairs() -> dict[str, bytes]:
    """Metadata of a tiny model: 2 layers, 4 heads, 2 of them for keys and values, 64 wide."""
    return {
        "general.architecture": scalar(STRING, "llama"),
        "general.file_type": scalar(UINT32, 15),
        "llama.block_count": scalar(UINT32, 2),
        "llama.context_length": scalar(UINT32, 128),
        "llama.embedding_length": scalar(UINT32, 64),
        "llama.attention.head_count": scalar(UINT32, 4),
        "llama.attention.head_count_kv": scalar(UINT32, 2),
        "tokenizer.ggml.tokens": array(STRING, ["<s>", "a", "bc"]),
        "tokenizer.ggml.scores": array(FLOAT32, [0.0, 1.0, 2.0]),
        "tokenizer.chat_template": scalar(STRING, "{{ messages }}"),
    }


@dataclass
class Gguf:
    """One file; every part may be set to something wrong."""

    pairs: dict[str, bytes] = field(default_factory=llama_pairs)
    tensors: list[bytes] = field(default_factory=lambda: [tensor("w", (64, 2), 0, 0), tensor("q", (32, 3), 2, 512)])
    data_bytes: int = 512 + 54
    version: int = 3
    magic: bytes = b"GGUF"
    tensor_count: int | None = None
    pair_count: int | None = None
    alignment: int = 32

    def header(self) -> bytes:
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        pair_count = len(self.pairs) if self.pair_count is None else self.pair_count
        out = self.magic + struct.pack("<IQQ", self.version, tensor_count, pair_count)
        out += b"".join(text(key) + value for key, value in self.pairs.items()) + b"".join(self.tensors)
        return out + bytes(-len(out) % self.alignment)

    def to_bytes(self) -> bytes:
        return self.header() + b"\x01" * self.data_bytes

    def write(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path
