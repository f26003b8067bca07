"""Writes ggmlv3 (GGJT version 3) files, as the tools of August 2023 did, from a Hugging Face llama folder."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.formats.hf_model import QUANTIZATIONS, Piece, quantized, read_model, tensor_type

GGML_QUANTIZATIONS = (
    "q2_K", "q3_K_L", "q3_K_M", "q3_K_S", "q4_0", "q4_1", "q4_K_M", "q4_K_S", "q5_0", "q5_1", "q5_K_M", "q5_K_S",
    "q6_K", "q8_0",
)  # fmt: skip


def write_ggml(folder_hf: Path, quantization: str, out: Path) -> Path:
    """Write the model of `folder_hf` to `out` in one of `GGML_QUANTIZATIONS`, or f16 or f32."""
    model = read_model(folder_hf)
    head_dim = model.n_embd // model.n_head
    # The tool of the time wrote the feed-forward width where n_mult belongs; readers do not need either.
    hparams = (model.n_vocab, model.n_embd, model.n_ff, model.n_head, model.n_layers, head_dim)
    data = bytearray(magic(hparams, QUANTIZATIONS[quantization.lower()][0]))
    for piece in model.pieces:
        data += token(decoded(piece), piece.score)
    for name, weights in model.tensors.items():
        kind = tensor_type(name, quantization)
        data += tensor_header(name, weights.shape, kind, len(data))
        data += quantized(folder_hf, name, kind)
    out.write_bytes(data)
    return out


def magic(hparams: tuple[int, ...], file_type: int, version: int = 3) -> bytes:
    """The first 36 bytes; `hparams` are n_vocab, n_embd, n_mult, n_head, n_layers and n_rot."""
    return b"tjgg" + struct.pack("<8I", version, *hparams, file_type)


def token(text: bytes, score: float) -> bytes:
    return struct.pack("<I", len(text)) + text + struct.pack("<f", score)


def tensor_header(name: str, shape: tuple[int, ...], kind: int, position: int) -> bytes:
    """Everything before a tensor's data, padded, if it starts `position` bytes into the file."""
    raw = name.encode()
    header = struct.pack(f"<{3 + len(shape)}I", len(shape), len(raw), kind, *shape) + raw
    return header + bytes(-(position + len(header)) % 32)


def decoded(piece: Piece) -> bytes:
    """What a piece stands for, as the old converter wrote it."""
    match piece.type:
        case 2:
            return " \u2047 ".encode()
        case 3:
            return b""
        case 6:
            return bytes([int(piece.text[3:-1], 16)])
    return piece.text.replace("▁", " ").encode()


def minimal_ggml(heads: int = 2, kv_heads: int = 1, vocab: int = 5) -> bytes:
    """A whole file with one layer of f32 tensors: as few bytes as there can be."""
    n_embd, n_ff = 2 * heads, 3
    data = bytearray(magic((vocab, n_embd, 256, heads, 1, 2), 0))
    for index, text in enumerate([" \u2047 ".encode(), b"", b"", b"\0", b" a", b"\xff\xfe", b" a"][:vocab]):
        data += token(text, -float(index))
    shapes = {
        "tok_embeddings": (n_embd, vocab),
        "norm": (n_embd,),
        "output": (n_embd, vocab),
        "layers.0.attention.wq": (n_embd, n_embd),
        "layers.0.attention.wk": (n_embd, 2 * kv_heads),
        "layers.0.attention.wv": (n_embd, 2 * kv_heads),
        "layers.0.attention.wo": (n_embd, n_embd),
        "layers.0.attention_norm": (n_embd,),
        "layers.0.feed_forward.w1": (n_embd, n_ff),
        "layers.0.feed_forward.w2": (n_ff, n_embd),
        "layers.0.feed_forward.w3": (n_embd, n_ff),
        "layers.0.ffn_norm": (n_embd,),
    }
    for name, shape in shapes.items():
        data += tensor_header(f"{name}.weight", shape, 0, len(data))
        data += b"\x01" * (4 * shape[0] * (shape[1] if len(shape) == 2 else 1))
    return bytes(data)
