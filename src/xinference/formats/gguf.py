"""Reads the header of a GGUF weight file: the model's hyperparameters and the sizes of its tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Versions 2 and 3, little-endian, are read.
Weights are never read, and the content of the file is not trusted: every count, length and offset is
checked against the file's size before its use, and the stored values are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xinference.formats.cursor import Cursor, bad_weight_file
from xinference.formats.gguf_tables import Tensors, Value, read_metadata, read_tensors
from xinference.formats.sniff import SNIFF_BYTES, describe
from xinference.formats.tensor_types import FILE_TYPE_GUESSED, FILE_TYPES, TENSOR_TYPES
from xinference.formats.weight_file import weight_file

_MAX_LAYERS = 1 << 14
_POOLING_RANK = 4
#: Architectures of encoders, which read a text at once and keep nothing of it: llama.cpp makes no cache for them
#: (`llama_model::create_memory`).
_ENCODERS = frozenset(
    {"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"}
    | {"gemma-embedding"}
)
_ELEMENTS = {kind.name: kind.block for kind in TENSOR_TYPES.values()}
_BYTES = {kind.name: kind.block_bytes for kind in TENSOR_TYPES.values()}


@dataclass(frozen=True)
class GgufHeader:
    """The header of a GGUF file. A number that is not in the file is None, unless stated otherwise."""

    path: Path
    file_size: int
    """Bytes."""
    version: int
    architecture: str
    """llama.cpp's name of the architecture, such as ``llama``; empty in the later parts of a split model."""
    metadata: Mapping[str, Value]
    """Scalars, and arrays of at most 1024 numbers; long strings and other arrays are left out."""
    array_lengths: Mapping[str, int]
    """Number of elements of every array, stored or not."""
    tensor_count: int
    weights_bytes: int
    """Sum of the tensors' own sizes, without padding."""
    bytes_by_type: Mapping[str, int]
    """Tensor type (``Q4_K``) -> bytes."""
    alignment: int
    data_offset: int
    """Bytes from the start of the file to the first tensor."""
    context_length: int | None
    """Tokens the model was trained with."""
    n_layers: int
    """Transformer blocks; 0 if not in the file (a projector, a vocabulary)."""
    heads_per_layer: tuple[int, ...]
    kv_heads_per_layer: tuple[int, ...]
    """Layers without attention have 0."""
    head_dim: int
    """Elements of one key; 0 if unknown."""
    value_dim: int
    """Elements of one value; 0 if unknown."""
    embedding_length: int | None
    vocab_size: int | None
    pooling_type: int | None
    """0 none, 1 mean, 2 first token, 3 last token, 4 rank."""

    @property
    def n_heads(self) -> int:
        """Query heads of the widest layer."""
        return max(self.heads_per_layer, default=0)

    @property
    def n_kv_heads(self) -> int:
        """Key and value heads of the widest layer."""
        return max(self.kv_heads_per_layer, default=0)

    @property
    def file_type(self) -> int | None:
        """llama.cpp's `general.file_type` number."""
        number = self.metadata.get("general.file_type")
        return number & ~FILE_TYPE_GUESSED if isinstance(number, int) else None

    @property
    def quantization(self) -> str | None:
        """Name such as ``Q4_K_M``; if it is not in the file, the type with the most bytes."""
        if self.file_type in FILE_TYPES:
            return FILE_TYPES[self.file_type]
        return max(self.bytes_by_type, key=lambda name: self.bytes_by_type[name], default=None)

    @property
    def chat_template(self) -> str | None:
        """Jinja source of the file's own chat template (not stored above 1 MiB)."""
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    @property
    def tool_template(self) -> str:
        """The template of requests with tools: the file's second one, or its only one; empty: it has none."""
        template = self.metadata.get("tokenizer.chat_template.tool_use")
        return template if isinstance(template, str) else self.chat_template or ""

    @property
    def is_reranker(self) -> bool:
        return self.pooling_type == _POOLING_RANK

    @property
    def parameters(self) -> int:
        """Elements of all tensors in this file."""
        return sum(size * _ELEMENTS[name] // _BYTES[name] for name, size in self.bytes_by_type.items())

    @property
    def split_count(self) -> int:
        """Number of files of a split model; the sizes of this object are of this file only."""
        count = self.metadata.get("split.count")
        return count if isinstance(count, int) and count > 0 else 1

    def kv_bytes_per_token(self, type_bytes: float = 2) -> int:
        """Bytes of KV cache for one token, `type_bytes` (2: f16) each element; 0 without attention and for encoders."""
        if self.architecture in _ENCODERS:
            return 0
        return int(sum(self.kv_heads_per_layer) * (self.head_dim + self.value_dim) * type_bytes)


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of the GGUF file at `path`.

    Raises:
        Problem: 400 ``bad_weight_file``: missing, unreadable, truncated, damaged, or not GGUF; names the file,
            the fault and its position.
    """
    with weight_file(path, "the .gguf file itself") as (file, size):
        return read_header_of(file, size, path)


def read_header_of(file: BinaryIO, size: int, path: Path) -> GgufHeader:
    """`read_header` for an open file of `size` bytes, which may be remote; `path` is its name in messages."""
    head = file.read(SNIFF_BYTES)
    if not head.startswith(b"GGUF"):
        description = describe(head, size)
        raise bad_weight_file(path, description.what, description.hint)
    return _read(Cursor(file, path, size))


def _read(cursor: Cursor) -> GgufHeader:
    cursor.skip(4, "the magic")
    version = _version(cursor)
    tensor_count = cursor.u64("the number of tensors")
    pair_count = cursor.u64("the number of metadata entries")
    metadata, lengths = read_metadata(cursor, pair_count)
    tensors = read_tensors(cursor, tensor_count, metadata)
    return _header(cursor, version, metadata, lengths, tensors)


def _version(cursor: Cursor) -> int:
    version = cursor.u32("the version")
    hint = "Convert the model again with a current llama.cpp, or download a current file."
    if version and not version & 0xFFFF:
        raise bad_weight_file(cursor.path, "is big-endian GGUF, which is not supported", hint)
    if version == 1:
        raise bad_weight_file(cursor.path, "is GGUF version 1, which llama.cpp no longer reads", hint)
    if version not in (2, 3):
        raise bad_weight_file(cursor.path, f"is GGUF version {version}; versions 2 and 3 are supported", hint)
    return version


def _header(
    cursor: Cursor, version: int, metadata: dict[str, Value], lengths: dict[str, int], tensors: Tensors
) -> GgufHeader:
    # The later parts of a split model have only tensors (llama.cpp's `gguf-split`).
    is_later_part = metadata.get("split.no") not in (None, 0)
    architecture = metadata.get("general.architecture", "" if is_later_part else None)
    if not isinstance(architecture, str) or not (architecture or is_later_part):
        raise cursor.damaged("it does not name its architecture (general.architecture)")
    numbers = _Numbers(cursor, metadata, architecture)
    n_layers = numbers.count("block_count") or 0
    if n_layers > _MAX_LAYERS:
        raise cursor.damaged(f"{architecture}.block_count is {n_layers}")
    heads = numbers.per_layer("attention.head_count", n_layers)
    kv_heads = numbers.per_layer("attention.head_count_kv", n_layers) or heads
    embedding = numbers.count("embedding_length", minimum=1)
    widest = max(heads, default=0)
    head_dim = numbers.count("attention.key_length") or ((embedding or 0) // widest if widest else 0)
    return GgufHeader(
        path=cursor.path,
        file_size=cursor.size,
        version=version,
        architecture=architecture,
        metadata=metadata,
        array_lengths=lengths,
        tensor_count=tensors.total,
        weights_bytes=sum(tensors.bytes_by_type.values()),
        bytes_by_type=tensors.bytes_by_type,
        alignment=tensors.alignment,
        data_offset=tensors.data_offset,
        # llama.cpp loads a model with a smaller context, and exits at the first prompt: it needs one cell more than the
        # prompt has tokens.
        context_length=numbers.count("context_length", minimum=2),
        n_layers=n_layers,
        heads_per_layer=heads,
        kv_heads_per_layer=kv_heads,
        head_dim=head_dim,
        value_dim=numbers.count("attention.value_length") or head_dim,
        embedding_length=embedding,
        vocab_size=numbers.count("vocab_size", minimum=1) or lengths.get("tokenizer.ggml.tokens"),
        pooling_type=numbers.count("pooling_type"),
    )


class _Numbers:
    """The architecture's hyperparameters, checked to be counts."""

    def __init__(self, cursor: Cursor, metadata: Mapping[str, Value], architecture: str) -> None:
        self._cursor = cursor
        self._metadata = metadata
        self._architecture = architecture

    def count(self, name: str, minimum: int = 0) -> int | None:
        key = f"{self._architecture}.{name}"
        value = self._metadata.get(key)
        if value is None:
            return None
        if (count := self._check_count(key, value)) < minimum:
            raise self._cursor.damaged(f"{key} is {count}, but must be at least {minimum}")
        return count

    def per_layer(self, name: str, n_layers: int) -> tuple[int, ...]:
        """One number for each layer, from a single number or an array; () if there is none."""
        key = f"{self._architecture}.{name}"
        value = self._metadata.get(key)
        if value is None:
            return ()
        if not isinstance(value, tuple):
            return (self._check_count(key, value),) * n_layers
        if len(value) != n_layers:
            raise self._cursor.damaged(f"{key} has {len(value)} numbers for {n_layers} layers")
        return tuple(self._check_count(key, each) for each in value)

    def _check_count(self, key: str, value: Value) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise self._cursor.damaged(f"{key} is {value!r:.80}, which is not a count")
        return value
