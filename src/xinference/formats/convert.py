"""Converts a ggmlv3 file to GGUF at the disk's speed: writes a new header and copies the tensors' bytes unchanged.

A tensor's blocks are the same bits in both formats, and so is the order of rows: ggmlv3 files have the attention
weights in the order of Meta's checkpoints, which llama.cpp's ``llama`` architecture expects in GGUF too (only
files in Hugging Face's order have to be permuted). Only the vocabulary is converted: ggmlv3 has the decoded text of
each piece, GGUF the piece itself and its type.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from xinference.errors import bad_request
from xinference.files.atomic_file import Sync, atomic_write
from xinference.files.disk_space import need_space
from xinference.files.progress import cancelled_problem
from xinference.formats.cursor import Cursor, bad_weight_file
from xinference.formats.ggml import GgmlHeader, GgmlTensor, read_open_ggml, read_pieces
from xinference.formats.gguf_writer import (
    MetadataValue,
    NumberArray,
    TensorInfo,
    data_size,
    padding,
    write_header,
)
from xinference.formats.llama_facts import LlamaFacts
from xinference.formats.weight_file import weight_file

Progress = Callable[[int, int | None, str], None]
"""Called with the bytes done, the total bytes and the target's name, in the converting thread."""

#: Bytes between two checks of `cancelled`.
_STEP = 16 << 20
#: Buffer in bytes, for files that the kernel cannot copy directly.
_BUFFER = 1 << 20
_NO_KERNEL_COPY = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
#: GGUF's `tokenizer.ggml.token_type` (SentencePiece's own numbers).
_NORMAL, _UNKNOWN, _CONTROL, _UNUSED, _BYTE = 1, 2, 3, 5, 6
_FIRST_BYTE_TOKEN = 3
_LAYER_NAME = re.compile(r"layers\.(\d+)\.(.+)")
_NAMES = {
    "tok_embeddings.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "output.weight": "output.weight",
    "attention.wq.weight": "attn_q.weight",
    "attention.wk.weight": "attn_k.weight",
    "attention.wv.weight": "attn_v.weight",
    "attention.wo.weight": "attn_output.weight",
    "attention_norm.weight": "attn_norm.weight",
    "feed_forward.w1.weight": "ffn_gate.weight",
    "feed_forward.w2.weight": "ffn_down.weight",
    "feed_forward.w3.weight": "ffn_up.weight",
    "ffn_norm.weight": "ffn_norm.weight",
}


def convert_ggml(
    source: Path,
    target: Path,
    facts: LlamaFacts,
    progress: Progress | None = None,
    cancelled: threading.Event | None = None,
    *,
    keep_existing: bool = False,
    sync: Sync = "before",
) -> Path:
    """Write the ggmlv3 file `source` as GGUF to `target`, which is only replaced by a complete file.

    Conversions to one target wait for each other. Memory use is a few MB, regardless of the file's size.

    Args:
        source: a ggmlv3 file.
        target: the path of the GGUF file; its folder is created if missing.
        facts: the model's facts that the file does not contain.
        progress: called every 16 MiB.
        cancelled: stops the conversion soon, when another thread sets it.
        keep_existing: return an existing `target` unchanged, also one that another writer has completed meanwhile.
        sync: the time at which the file is synced to the disk, so that it also survives a power cut.

    Returns:
        `target`.

    Raises:
        Problem: ``bad_weight_file`` (see `read_ggml`), ``disk_full``, ``cannot_write``, ``cancelled``, or
            ``invalid_request`` if both are one file. `target` is then unchanged.
    """
    cancelled = cancelled or threading.Event()
    with weight_file(source, "the ggmlv3 .bin file itself") as (file, size):
        header = read_open_ggml(file, source, size)
        if target.exists() and target.samefile(source):
            raise bad_request(f"{target} is the file to be converted.", hint="Choose another name for the result.")
        with atomic_write(target, cancelled, keep_existing=keep_existing, sync=sync) as out:
            if out is not None:
                _write(file, header, out, target, facts, progress, cancelled)
    return target


def _write(
    file: BinaryIO,
    header: GgmlHeader,
    out: BinaryIO,
    target: Path,
    facts: LlamaFacts,
    progress: Progress | None,
    cancelled: threading.Event,
) -> None:
    tensors = [TensorInfo(gguf_name(t.name), t.shape, t.type, t.size) for t in header.tensors]
    total = data_size(tensors)
    # The new header has the size of the old one plus some bytes for each token and tensor.
    need_space(target.parent, total + 3 * header.vocabulary_bytes + 128 * len(tensors) + (1 << 20), target.name)
    write_header(out, _metadata(file, header, facts), tensors)
    out.flush()
    done = 0
    for tensor in header.tensors:
        for count in _copy(file, out, tensor, header.path):
            if cancelled.is_set():
                raise cancelled_problem(target.name, action="Writing", hint="Start again.")
            done += count
            if progress:
                progress(done, total, target.name)
        pad = bytes(padding(tensor.size))
        os.write(out.fileno(), pad)
        done += len(pad)


def gguf_name(name: str) -> str:
    """GGUF's name for ggmlv3's tensor `name`."""
    match = _LAYER_NAME.fullmatch(name)
    return f"blk.{match[1]}.{_NAMES[match[2]]}" if match else _NAMES[name]


def _metadata(file: BinaryIO, header: GgmlHeader, facts: LlamaFacts) -> dict[str, MetadataValue]:
    _check_facts(header, facts)
    tokens, types, scores = _vocabulary(file, header, facts)
    metadata: dict[str, MetadataValue] = {
        "general.architecture": "llama",
        "general.name": facts.name,
        "general.file_type": header.file_type,
        "general.quantization_version": 2,
        "llama.context_length": facts.context_length,
        "llama.embedding_length": header.n_embd,
        "llama.block_count": header.n_layers,
        "llama.feed_forward_length": header.n_ff,
        "llama.rope.dimension_count": header.head_dim,
        "llama.rope.freq_base": facts.rope_freq_base,
        "llama.attention.head_count": header.n_head,
        "llama.attention.head_count_kv": header.n_kv_heads,
        "llama.attention.layer_norm_rms_epsilon": facts.rms_norm_eps,
        "llama.vocab_size": header.n_vocab,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": NumberArray.of_floats(scores),
        "tokenizer.ggml.token_type": NumberArray.of_integers(types),
        "tokenizer.ggml.bos_token_id": facts.bos_token_id,
        "tokenizer.ggml.eos_token_id": facts.eos_token_id,
        "tokenizer.ggml.unknown_token_id": facts.unk_token_id,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }
    if facts.chat_template is not None:
        metadata["tokenizer.chat_template"] = facts.chat_template
    return metadata


def _check_facts(header: GgmlHeader, facts: LlamaFacts) -> None:
    special = {facts.unk_token_id, facts.bos_token_id, facts.eos_token_id}
    if not all(0 <= token < header.n_vocab for token in special):
        raise bad_request(
            f"The special tokens {sorted(special)} of {facts.name} are not all among the {header.n_vocab} of "
            f"{header.path}.",
            hint="Correct the token ids in the model's registry entry.",
        )


def _vocabulary(file: BinaryIO, header: GgmlHeader, facts: LlamaFacts) -> tuple[list[bytes], list[int], list[float]]:
    """Text in SentencePiece's form, type and score of each token."""
    special = {
        facts.unk_token_id: (b"<unk>", _UNKNOWN),
        facts.bos_token_id: (b"<s>", _CONTROL),
        facts.eos_token_id: (b"</s>", _CONTROL),
    }
    tokens: list[bytes] = []
    types: list[int] = []
    scores: list[float] = []
    seen = {text for text, _ in special.values()}
    cursor = Cursor(file, header.path, header.file_size)
    cursor.skip(header.vocabulary_offset, "the vocabulary")
    for index, (piece, score) in enumerate(read_pieces(cursor, header.n_vocab)):
        text, kind = special.get(index) or _token(index, piece, seen)
        seen.add(text)
        tokens.append(text)
        types.append(kind)
        scores.append(score)
    return tokens, types, scores


def _token(index: int, piece: bytes, seen: set[bytes]) -> tuple[bytes, int]:
    """Text and type of a token that is not special. Text that is not UTF-8 is written as the same bytes."""
    if len(piece) == 1 and piece[0] == index - _FIRST_BYTE_TOKEN:
        text, kind = b"<0x%02X>" % piece[0], _BYTE
    else:
        text, kind = piece.replace(b" ", "▁".encode()), _NORMAL
    if text and text not in seen:
        return text, kind
    # llama.cpp refuses a vocabulary with the same text twice.
    text = b"<unused_%d>" % index
    while text in seen:
        text += b"_"
    return text, _UNUSED


def _copy(file: BinaryIO, out: BinaryIO, tensor: GgmlTensor, path: Path) -> Iterator[int]:
    """Append a tensor's bytes to `out`, by the kernel if possible; yields the bytes of each step."""
    position, end = tensor.offset, tensor.offset + tensor.size
    while position < end:
        count = _copy_some(file.fileno(), out.fileno(), position, min(_STEP, end - position))
        if count == 0:
            raise bad_weight_file(path, "became shorter while it was read", "Download it again.")
        position += count
        yield count


def _copy_some(source: int, target: int, position: int, count: int) -> int:
    """Copy at most `count` bytes from `position` to `target`'s position; 0 at the source's end."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, count, position)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
    return os.write(target, os.pread(source, min(count, _BUFFER), position))
