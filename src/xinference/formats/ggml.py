"""Reads the header of a weight file in the last format before GGUF: GGJT version 3, known as ggmlv3.

Layout, little-endian, as llama.cpp wrote it from May to August 2023 (`llama_model_loader`, `llama_file_saver`):
magic and version; seven 32-bit numbers; the vocabulary (length, bytes, score); then the tensors, each with
its rank, name length and type, its dimensions (the row's length first), its name, padding to 32 bytes, and its data.
There is no tensor count: the list ends with the file. Only llama models exist in this format.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from xinference.errors import Problem
from xinference.formats.cursor import Cursor, bad_weight_file
from xinference.formats.sniff import SNIFF_BYTES, describe
from xinference.formats.tensor_types import FILE_TYPES, TENSOR_TYPES
from xinference.formats.weight_file import weight_file

#: Numbers of `enum ggml_type` that can occur in such a file; their blocks are identical to those of GGUF.
GGML_TYPES = {number: TENSOR_TYPES[number] for number in (0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14)}
#: Numbers of `enum llama_ftype` at the time; all but 4 still have the same meaning.
_GGML_FILE_TYPES = frozenset({0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18})
_F32 = 0
_MAGIC = b"tjgg"
_ALIGNMENT = 32
_HPARAMS = struct.Struct("<7I")
_SCORE = struct.Struct("<f")

# Limits of header values, above any llama model of that time: they bound time and memory.
_MAX_VOCAB = 1 << 17
_MAX_PIECE = 1024
_MAX_VOCAB_BYTES = 8 << 20
_MAX_WIDTH = 1 << 20
_MAX_HEADS = 1 << 12
_MAX_LAYERS = 512
_MAX_NAME = 128

#: Tensor name -> its shape, row length first; the widths ``kv`` and ``ff`` are derived from the tensors.
_OUTER = {
    "tok_embeddings.weight": ("n_embd", "n_vocab"),
    "norm.weight": ("n_embd",),
    "output.weight": ("n_embd", "n_vocab"),
}
_INNER = {
    "attention.wq.weight": ("n_embd", "n_embd"),
    "attention.wk.weight": ("n_embd", "kv"),
    "attention.wv.weight": ("n_embd", "kv"),
    "attention.wo.weight": ("n_embd", "n_embd"),
    "attention_norm.weight": ("n_embd",),
    "feed_forward.w1.weight": ("n_embd", "ff"),
    "feed_forward.w2.weight": ("ff", "n_embd"),
    "feed_forward.w3.weight": ("n_embd", "ff"),
    "ffn_norm.weight": ("n_embd",),
}


@dataclass(frozen=True)
class GgmlTensor:
    """One tensor and the position of its bytes."""

    name: str
    shape: tuple[int, ...]
    """Row length first, as in the file."""
    type: int
    """`enum ggml_type`, a key of `GGML_TYPES`."""
    offset: int
    """Bytes from the start of the file."""
    size: int
    """Bytes, without padding."""


@dataclass(frozen=True)
class GgmlHeader:
    """The header of a ggmlv3 file. Context length, epsilon, token types and chat template are not in it."""

    path: Path
    file_size: int
    """Bytes."""
    n_vocab: int
    n_embd: int
    n_head: int
    n_layers: int
    file_type: int
    """`enum llama_ftype`, the same number as GGUF's `general.file_type`."""
    n_ff: int
    """Width of the feed-forward network, from the tensors' shapes."""
    n_kv_heads: int
    """Key and value heads, from the tensors' shapes."""
    vocabulary_offset: int
    """Bytes from the start of the file to the vocabulary."""
    vocabulary_bytes: int
    tensors: tuple[GgmlTensor, ...]
    """In the file's order; exactly those of a llama model of `n_layers` layers."""

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def quantization(self) -> str:
        """Name as in file names: ``q4_K_M``, ``f16``."""
        name = FILE_TYPES[self.file_type]
        return name[0].lower() + name[1:]

    @cached_property
    def bytes_by_type(self) -> Mapping[str, int]:
        """Tensor type (``Q4_K``) -> bytes."""
        total: dict[str, int] = {}
        for tensor in self.tensors:
            name = GGML_TYPES[tensor.type].name
            total[name] = total.get(name, 0) + tensor.size
        return total

    @property
    def weights_bytes(self) -> int:
        """Sum of the tensors' own sizes, without padding."""
        return sum(tensor.size for tensor in self.tensors)

    def kv_bytes_per_token(self, type_bytes: float = 2) -> int:
        """Bytes of KV cache for one token, `type_bytes` (2: f16) each element."""
        return int(self.n_layers * self.n_kv_heads * 2 * self.head_dim * type_bytes)


def read_ggml(path: Path) -> GgmlHeader:
    """Read and check the header of the ggmlv3 file at `path`, in bounded memory; the weights are not read.

    Raises:
        Problem: 400 ``bad_weight_file``: missing, unreadable, truncated, damaged, an older layout or another
            format; names the file, the fault and its position.
    """
    with weight_file(path, "the ggmlv3 .bin file itself") as (file, size):
        return read_open_ggml(file, path, size)


def read_open_ggml(file: BinaryIO, path: Path, size: int) -> GgmlHeader:
    """`read_ggml` for a file of `size` bytes that is open at its start; `path` is its name in messages.

    Raises:
        Problem: as `read_ggml`.
        OSError: it cannot be read.
    """
    return _read(_cursor_after_version(file, path, size))


@dataclass(frozen=True)
class GgmlNumbers:
    """The numbers in the first bytes of a ggmlv3 file, before its vocabulary and its tensors."""

    n_vocab: int
    n_embd: int
    n_head: int
    n_layers: int


def read_numbers(file: BinaryIO, path: Path, size: int) -> GgmlNumbers:
    """The numbers of a file that is open at its start and may be remote; nothing after them is needed.

    The list of tensors is spread over the whole file, so that it cannot be read without the weights.

    Raises:
        Problem: 400 ``bad_weight_file``.
    """
    cursor = _cursor_after_version(file, path, size)
    hparams = _read_hparams(cursor)
    return GgmlNumbers(hparams["n_vocab"], hparams["n_embd"], hparams["n_head"], hparams["n_layers"])


def read_pieces(cursor: Cursor, n_vocab: int) -> Iterator[tuple[bytes, float]]:
    """Every entry of the vocabulary, which starts at the cursor's position: its text and score.

    SentencePiece's ``▁`` is a space, a byte token is a single byte; control tokens are empty.
    """
    end = cursor.position + _MAX_VOCAB_BYTES
    for index, entry in enumerate(cursor.entries(n_vocab, _SCORE.size, _MAX_PIECE, "the vocabulary")):
        if cursor.position > end:
            raise cursor.damaged(f"the vocabulary up to token {index} has more than {_MAX_VOCAB_BYTES} bytes")
        (score,) = _SCORE.unpack(entry[-4:])
        if not math.isfinite(score):
            raise cursor.damaged(f"the score of token {index} before byte {cursor.position} is {score}")
        yield entry[:-4], score


def _cursor_after_version(file: BinaryIO, path: Path, size: int) -> Cursor:
    """A cursor at the model's numbers of an open file."""
    head = file.read(SNIFF_BYTES)
    if not head.startswith(_MAGIC):
        raise _older(path, head) or bad_weight_file(path, *describe(head, size, "ggml"))
    cursor = Cursor(file, path, size)
    cursor.skip(4, "the magic")
    _check_version(cursor)
    return cursor


def _older(path: Path, head: bytes) -> Problem | None:
    """The problem of an older variant of this format, which cannot be converted by copying; None if it is none."""
    hint = "Download the model's ggmlv3 or, better, its GGUF file."
    match head[:4]:
        case b"lmgg":
            return bad_weight_file(
                path, "is in the unversioned 'ggml' layout, which has no token scores and splits its tensors", hint
            )
        case b"fmgg":
            return bad_weight_file(
                path, "is in the 'ggmf' layout (version 1), whose tensors are not aligned and may be split", hint
            )
        case b"algg":
            return bad_weight_file(
                path, "is a LoRA adapter ('ggla'), not a model", "Give the file of the model that it adapts."
            )
    return None


def _check_version(cursor: Cursor) -> None:
    version = cursor.u32("the version")
    if version in (1, 2):
        raise bad_weight_file(
            cursor.path,
            f"is in the 'ggjt' layout of version {version}, whose quantized blocks are laid out differently "
            "(ggmlv3 is version 3)",
            "Fetch the model's ggmlv3 or, better, its GGUF file.",
        )
    if version != 3:
        raise cursor.damaged(f"the version at byte 4 is {version}, and ggmlv3 has 3")


def _read(cursor: Cursor) -> GgmlHeader:
    hparams = _read_hparams(cursor)
    vocabulary_offset = cursor.position
    # The minimum size of the vocabulary, checked before it is read.
    cursor.need(8 * hparams["n_vocab"], "the vocabulary")
    for _ in read_pieces(cursor, hparams["n_vocab"]):
        pass
    vocabulary_bytes = cursor.position - vocabulary_offset
    tensors, widths = _read_tensors(cursor, hparams)
    return GgmlHeader(
        path=cursor.path,
        file_size=cursor.size,
        n_vocab=hparams["n_vocab"],
        n_embd=hparams["n_embd"],
        n_head=hparams["n_head"],
        n_layers=hparams["n_layers"],
        file_type=hparams["ftype"],
        n_ff=widths["ff"],
        n_kv_heads=_kv_heads(cursor, hparams, widths["kv"]),
        vocabulary_offset=vocabulary_offset,
        vocabulary_bytes=vocabulary_bytes,
        tensors=tensors,
    )


def _read_hparams(cursor: Cursor) -> dict[str, int]:
    names = ("n_vocab", "n_embd", "n_mult", "n_head", "n_layers", "n_rot", "ftype")
    hparams = dict(zip(names, _HPARAMS.unpack(cursor.take(_HPARAMS.size, "the model's numbers")), strict=True))
    _check_hparams(cursor, hparams)
    return hparams


def _check_hparams(cursor: Cursor, hparams: Mapping[str, int]) -> None:
    limits = {"n_vocab": _MAX_VOCAB, "n_embd": _MAX_WIDTH, "n_head": _MAX_HEADS, "n_layers": _MAX_LAYERS}
    for name, limit in limits.items():
        if not 0 < hparams[name] <= limit:
            raise cursor.damaged(f"{name} in its first 36 bytes is {hparams[name]}, which is not between 1 and {limit}")
    n_embd, n_head, n_rot = hparams["n_embd"], hparams["n_head"], hparams["n_rot"]
    if n_embd != n_head * n_rot or n_rot % 2:
        raise cursor.damaged(f"{n_head} heads with {n_rot} rotated elements do not make the width {n_embd} (byte 12)")
    if hparams["ftype"] not in _GGML_FILE_TYPES:
        raise cursor.damaged(f"the quantization's number at byte 32 is {hparams['ftype']}, which ggmlv3 does not have")


def _kv_heads(cursor: Cursor, hparams: Mapping[str, int], kv_width: int) -> int:
    n_head, head_dim = hparams["n_head"], hparams["n_rot"]
    kv_heads, rest = divmod(kv_width, head_dim)
    if rest or not kv_heads or n_head % kv_heads:
        raise cursor.damaged(
            f"layers.N.attention.wk.weight has {kv_width} rows, which is not a number of heads of {head_dim} elements "
            f"that the {n_head} query heads could share"
        )
    return kv_heads


def _read_tensors(cursor: Cursor, hparams: Mapping[str, int]) -> tuple[tuple[GgmlTensor, ...], dict[str, int]]:
    """All tensors to the end of the file, and the widths that are derived from them."""
    expected: dict[str, tuple[str, ...]] = dict(_OUTER)
    for layer in range(hparams["n_layers"]):
        expected.update({f"layers.{layer}.{name}": shape for name, shape in _INNER.items()})
    widths = {"n_embd": hparams["n_embd"], "n_vocab": hparams["n_vocab"]}
    tensors: dict[str, GgmlTensor] = {}
    while cursor.remaining:
        tensor = _read_tensor(cursor, expected, widths)
        if tensor.name in tensors:
            raise cursor.damaged(f"tensor {tensor.name!r} occurs twice, the second time before byte {tensor.offset}")
        tensors[tensor.name] = tensor
    if len(tensors) < len(expected):
        missing = next(name for name in expected if name not in tensors)
        raise bad_weight_file(
            cursor.path,
            f"is truncated: it ends at byte {cursor.size} after {len(tensors)} of {len(expected)} tensors, "
            f"without {missing!r}",
            "Delete the file and fetch it again.",
        )
    return tuple(tensors.values()), widths


def _read_tensor(cursor: Cursor, expected: Mapping[str, tuple[str, ...]], widths: dict[str, int]) -> GgmlTensor:
    start = cursor.position
    rank, name_length, type_number = struct.unpack("<3I", cursor.take(12, f"a tensor at byte {start}"))
    if rank not in (1, 2) or not 0 < name_length <= _MAX_NAME:
        raise cursor.damaged(f"the tensor at byte {start} claims {rank} dimensions and a name of {name_length} bytes")
    shape: tuple[int, ...] = struct.unpack(f"<{rank}I", cursor.take(4 * rank, f"the shape of a tensor at byte {start}"))
    name = cursor.take(name_length, f"the name of a tensor at byte {start}").decode("utf-8", "replace")
    symbols = expected.get(name)
    if symbols is None:
        raise cursor.damaged(f"the tensor at byte {start} is named {name!r}, which this model should not have")
    _check_shape(cursor, f"tensor {name!r} at byte {start}", shape, symbols, widths)
    kind = GGML_TYPES.get(type_number)
    if kind is None or shape[0] % kind.block or (rank == 1 and type_number != _F32):
        raise cursor.damaged(
            f"tensor {name!r} at byte {start} has the type {kind.name if kind else type_number}, "
            f"which cannot hold the shape {list(shape)}"
        )
    cursor.skip(-cursor.position % _ALIGNMENT, f"the padding before {name!r}")
    offset, size = cursor.position, math.prod(shape) // kind.block * kind.block_bytes
    cursor.skip(size, f"tensor {name!r}")
    return GgmlTensor(name, shape, type_number, offset, size)


def _check_shape(
    cursor: Cursor, what: str, shape: tuple[int, ...], symbols: tuple[str, ...], widths: dict[str, int]
) -> None:
    """Compare a shape with the known widths; a width that occurs for the first time is added to them."""
    if len(shape) == len(symbols) and all(
        0 < length <= _MAX_WIDTH and widths.setdefault(symbol, length) == length
        for length, symbol in zip(shape, symbols, strict=True)
    ):
        return
    expected_shape = [widths.get(symbol, symbol) for symbol in symbols]
    raise cursor.damaged(f"{what} has the shape {list(shape)} instead of {expected_shape}")
