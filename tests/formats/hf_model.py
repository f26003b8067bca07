"""Reads a small Hugging Face llama folder by hand and quantizes it with ggml's own code, for the two writers."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import struct
from array import array
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 = 0, 1, 2, 3, 6, 7, 8
Q2_K, Q3_K, Q4_K, Q5_K, Q6_K = 10, 11, 12, 13, 14

#: Quantization in lower case -> its `llama_ftype` and the type of most of its tensors.
QUANTIZATIONS = {
    "f32": (0, F32),
    "f16": (1, F16),
    "q4_0": (2, Q4_0),
    "q4_1": (3, Q4_1),
    "q8_0": (7, Q8_0),
    "q5_0": (8, Q5_0),
    "q5_1": (9, Q5_1),
    "q2_k": (10, Q2_K),
    "q3_k_s": (11, Q3_K),
    "q3_k_m": (12, Q3_K),
    "q3_k_l": (13, Q3_K),
    "q4_k_s": (14, Q4_K),
    "q4_k_m": (15, Q4_K),
    "q5_k_s": (16, Q5_K),
    "q5_k_m": (17, Q5_K),
    "q6_k": (18, Q6_K),
}
#: Types of the value, output and down projections where they differ from the rest (llama.cpp, August 2023).
_MIXTURES = {
    "q2_k": {"wv": Q4_K, "wo": Q4_K, "w2": Q4_K},
    "q3_k_m": {"wv": Q4_K, "wo": Q4_K, "w2": Q4_K},
    "q3_k_l": {"wv": Q5_K, "wo": Q5_K, "w2": Q5_K},
    "q4_k_m": {"wv": Q6_K, "w2": Q6_K},
    "q5_k_m": {"wv": Q6_K, "w2": Q6_K},
}
_LAYER = {
    "attention.wq.weight": "self_attn.q_proj",
    "attention.wk.weight": "self_attn.k_proj",
    "attention.wv.weight": "self_attn.v_proj",
    "attention.wo.weight": "self_attn.o_proj",
    "attention_norm.weight": "input_layernorm",
    "feed_forward.w1.weight": "mlp.gate_proj",
    "feed_forward.w2.weight": "mlp.down_proj",
    "feed_forward.w3.weight": "mlp.up_proj",
    "ffn_norm.weight": "post_attention_layernorm",
}


class Piece(NamedTuple):
    """One entry of a SentencePiece vocabulary."""

    text: str
    score: float
    type: int
    """1 normal, 2 unknown, 3 control, 6 byte."""


@dataclass(frozen=True)
class Weights:
    """One tensor; row length first in its shape."""

    shape: tuple[int, ...]
    values: array[float]


@dataclass(frozen=True)
class Model:
    """A model with ggml's tensor names and the rows of wq and wk in the order of Meta's checkpoints."""

    n_vocab: int
    n_embd: int
    n_head: int
    n_kv_heads: int
    n_layers: int
    n_ff: int
    context_length: int
    rms_norm_eps: float
    pieces: tuple[Piece, ...]
    tensors: dict[str, Weights]


@cache
def read_model(folder: Path) -> Model:
    """The model in a folder with config.json, model.safetensors (f16) and tokenizer.model."""
    config = json.loads((folder / "config.json").read_text())
    n_layers, n_head = config["num_hidden_layers"], config["num_attention_heads"]
    names = {
        "tok_embeddings.weight": "model.embed_tokens",
        "norm.weight": "model.norm",
        "output.weight": "lm_head",
    }
    for layer in range(n_layers):
        names.update({f"layers.{layer}.{ours}": f"model.layers.{layer}.{theirs}" for ours, theirs in _LAYER.items()})
    stored = _safetensors(folder / "model.safetensors")
    heads = {"attention.wq.weight": n_head, "attention.wk.weight": config["num_key_value_heads"]}
    tensors = {}
    for ours, theirs in names.items():
        weights = stored[f"{theirs}.weight"]
        rotated = heads.get(ours.split(".", 2)[-1])
        tensors[ours] = _interleave(weights, rotated) if rotated else weights
    return Model(
        n_vocab=config["vocab_size"],
        n_embd=config["hidden_size"],
        n_head=n_head,
        n_kv_heads=config["num_key_value_heads"],
        n_layers=n_layers,
        n_ff=config["intermediate_size"],
        context_length=config["max_position_embeddings"],
        rms_norm_eps=config["rms_norm_eps"],
        pieces=tuple(_sentencepiece((folder / "tokenizer.model").read_bytes())),
        tensors=tensors,
    )


def tensor_type(name: str, quantization: str) -> int:
    """`enum ggml_type` of the tensor that ggml calls `name`, in a file of this quantization."""
    if "norm" in name:
        return F32
    plain = QUANTIZATIONS[quantization.lower()][1]
    if name == "output.weight":
        return plain if plain in (F32, F16, Q8_0) else Q6_K
    return _MIXTURES.get(quantization.lower(), {}).get(name.split(".")[-2], plain)


@cache
def quantized(folder: Path, name: str, kind: int) -> bytes:
    """A tensor of the folder's model in ggml's blocks."""
    weights = read_model(folder).tensors[name]
    row = weights.shape[0]
    rows = len(weights.values) // row
    library = _ggml()
    out = ctypes.create_string_buffer(rows * library.ggml_row_size(kind, row))
    source = (ctypes.c_float * len(weights.values)).from_buffer(weights.values)
    written = library.ggml_quantize_chunk(kind, source, out, 0, rows, row, None)
    assert written == len(out)
    return out.raw


@cache
def _ggml() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None and spec.origin is not None
    library = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("*.so"))))
    library.ggml_row_size.restype = ctypes.c_size_t
    library.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    return library


def _safetensors(path: Path) -> dict[str, Weights]:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F16"
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        values = array("f", struct.unpack(f"<{(end - start) // 2}e", data[start:end]))
        tensors[name] = Weights(tuple(reversed(entry["shape"])), values)
    return tensors


def _interleave(weights: Weights, heads: int) -> Weights:
    """Undo Hugging Face's order of rows, which puts the halves of a head's rotated pairs one after the other."""
    row, rows = weights.shape
    half = rows // heads // 2
    values = array("f")
    for head in range(heads):
        for pair in range(half):
            for side in range(2):
                start = ((head * 2 + side) * half + pair) * row
                values += weights.values[start : start + row]
    return Weights(weights.shape, values)


def _sentencepiece(data: bytes) -> list[Piece]:
    """The pieces in a SentencePiece model: field 1 of its protobuf, of which text, score and type are 1 to 3."""
    return [_piece(message) for field, message in _fields(data) if field == 1 and isinstance(message, bytes)]


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    text, score, kind = fields[1], fields.get(2, bytes(4)), fields.get(3, 1)
    assert isinstance(text, bytes) and isinstance(score, bytes) and isinstance(kind, int)
    return Piece(text.decode(), struct.unpack("<f", score)[0], kind)


def _fields(data: bytes) -> list[tuple[int, bytes | int]]:
    fields: list[tuple[int, bytes | int]] = []
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        tag = varint()
        if tag & 7 == 0:
            fields.append((tag >> 3, varint()))
            continue
        length = varint() if tag & 7 == 2 else {1: 8, 5: 4}[tag & 7]
        fields.append((tag >> 3, data[position : position + length]))
        position += length
    return fields
