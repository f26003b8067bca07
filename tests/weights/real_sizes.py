"""Headers of weight files with the tensors and sizes of real models; the weights themselves are holes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.fakes.hub.repositories import Padded
from tests.formats.gguf_writer import STRING, UINT32, Gguf, scalar, tensor
from xinference.catalog.models import ModelShapeFacts, ModelVersion
from xinference.formats.tensor_types import TENSOR_TYPES

_TYPES = {kind.name: kind for kind in TENSOR_TYPES.values()}
_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}
_FILE_TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12,
    "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "f16": 1}  # fmt: skip
_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}

Tensor = tuple[str, tuple[int, ...], str]
"""Name, shape with the row's length first, and type."""


def forward_width(facts: ModelShapeFacts) -> int:
    """The width of the feed-forward, from the number of parameters."""
    keys = facts.kv_heads * facts.head_dim
    attention = 2 * facts.hidden * (facts.heads * facts.head_dim + keys)
    vocabulary = (1 if facts.tied else 2) * facts.vocab * facts.hidden
    rest = facts.parameters - vocabulary - facts.layers * (attention + 2 * facts.hidden) - facts.hidden
    return rest // (3 * facts.layers * facts.hidden) // 32 * 32


def _type_of(kind: str, name: str, layer: int, facts: ModelShapeFacts, *, early: bool) -> str:
    """The type that llama.cpp's quantizer gives a matrix of a layer."""
    base = {"q2_k": "Q2_K", "q6_k": "Q6_K", "f16": "F16", "fp16": "F16", "bf16": "BF16", "f32": "F32"}.get(name) or (
        name.rpartition("_")[0].upper() if name.endswith(("_s", "_m", "_l")) else name.upper()
    )
    eighth = facts.layers // 8
    more = layer < eighth or layer >= 7 * facts.layers // 8 or (layer - eighth) % 3 == 2
    if name == "q2_k" and kind in ("v", "out", "down"):
        wide = kind == "v" and facts.heads >= 4 * facts.kv_heads
        return "Q4_K" if early or wide else "Q3_K"
    if kind == "v" and facts.layers == 80 and base in ("Q3_K", "Q4_K"):
        return "Q5_K"
    match name, kind:
        case "q3_k_m", "v":
            return "Q5_K" if layer < 2 else "Q4_K"
        case "q3_k_m", "down":
            return "Q5_K" if layer < facts.layers // 16 else "Q4_K"
        case "q3_k_m", "out":
            return "Q4_K"
        case "q3_k_l", "v" | "down" | "out":
            return "Q5_K"
        case "q4_k_m" | "q5_k_m", "v" | "down" if more:
            return "Q6_K"
        case "q4_k_s", "v" if layer < 4:
            return "Q5_K"
        case "q4_k_s", "down" if layer < eighth:
            return "Q5_K"
    return base


def tensors_of(
    facts: ModelShapeFacts, quantization: str, *, early: bool, output: str | None = None
) -> Iterator[Tensor]:
    """All tensors of a llama-like model. `output`: the type of the output matrix; None: as today's llama.cpp does."""
    name = quantization.lower()
    base = _type_of("up", name, 0, facts, early=early)
    last = output or (base if base in ("Q8_0", "F16", "BF16", "F32") else "Q6_K")
    hidden, width, keys = facts.hidden, forward_width(facts), facts.kv_heads * facts.head_dim
    yield "token_embd.weight", (hidden, facts.vocab), last if facts.tied else base
    if not facts.tied:
        yield "output.weight", (hidden, facts.vocab), last
    yield "output_norm.weight", (hidden,), "F32"
    shapes = {"q": (hidden, facts.heads * facts.head_dim), "k": (hidden, keys), "v": (hidden, keys),
        "out": (facts.heads * facts.head_dim, hidden), "gate": (hidden, width), "up": (hidden, width),
        "down": (width, hidden)}  # fmt: skip
    for layer in range(facts.layers):
        for kind, shape in shapes.items():
            yield f"blk.{layer}.{kind}.weight", shape, _type_of(kind, name, layer, facts, early=early)
        for norm in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{norm}.weight", (hidden,), "F32"


def _stored(shape: tuple[int, ...], kind: str) -> tuple[str, int]:
    """The type of a tensor whose rows are no multiple of its block, and its bytes."""
    if shape[0] % _TYPES[kind].block:
        kind = _FALLBACK[kind]
    return kind, math.prod(shape) // _TYPES[kind].block * _TYPES[kind].block_bytes


def gguf_file(facts: ModelShapeFacts, context: int, quantization: str, *, early: bool = False) -> Padded:
    """A GGUF file of this shape."""
    infos, offset = [], 0
    for name, shape, wanted in tensors_of(facts, quantization, early=early):
        kind, size = _stored(shape, wanted)
        infos.append(tensor(name, shape, _NUMBERS[kind], offset))
        offset += -(-size // 32) * 32
    pairs = {
        "general.architecture": scalar(STRING, "llama"),
        "general.file_type": scalar(UINT32, _FILE_TYPES.get(quantization.lower(), 15)),
        "llama.block_count": scalar(UINT32, facts.layers),
        "llama.context_length": scalar(UINT32, context),
        "llama.embedding_length": scalar(UINT32, facts.hidden),
        "llama.attention.head_count": scalar(UINT32, facts.heads),
        "llama.attention.head_count_kv": scalar(UINT32, facts.kv_heads),
        "llama.attention.key_length": scalar(UINT32, facts.head_dim),
        "llama.attention.value_length": scalar(UINT32, facts.head_dim),
        "llama.vocab_size": scalar(UINT32, facts.vocab),
    }
    header = Gguf(pairs=pairs, tensors=infos).header()
    return Padded(header, len(header) + offset)


@cache
def _vocabulary(count: int) -> bytes:
    pieces = (f"piece{index}".encode() for index in range(count))
    return b"".join(struct.pack("<I", len(piece)) + piece + struct.pack("<f", 0.0) for piece in pieces)


def write_ggml(facts: ModelShapeFacts, quantization: str, path: Path) -> bytes:
    """A sparse ggmlv3 file of this shape at `path`; returns its first bytes, up to the tensors."""
    names = {"token_embd": "tok_embeddings", "output_norm": "norm", "q": "attention.wq", "k": "attention.wk",
        "v": "attention.wv", "out": "attention.wo", "gate": "feed_forward.w1", "down": "feed_forward.w2",
        "up": "feed_forward.w3", "attn_norm": "attention_norm", "ffn_norm": "ffn_norm"}  # fmt: skip
    name = quantization.lower()
    output = None if "_k" in name else name.upper()
    n_rot = facts.head_dim
    head = b"tjgg" + struct.pack("<I", 3) + struct.pack(
        "<7I", facts.vocab, facts.hidden, 256, facts.heads, facts.layers, n_rot, _FILE_TYPES[name]
    ) + _vocabulary(facts.vocab)  # fmt: skip
    with path.open("wb") as file:
        file.write(head)
        for own, shape, wanted in tensors_of(facts, quantization, early=True, output=output):
            parts = own.removesuffix(".weight").split(".")
            prefix = f"layers.{parts[1]}." if parts[0] == "blk" else ""
            old = f"{prefix}{names.get(parts[-1], parts[-1])}.weight".encode()
            kind, size = _stored(shape, wanted)
            file.write(struct.pack(f"<3I{len(shape)}I", len(shape), len(old), _NUMBERS[kind], *shape) + old)
            file.seek(-file.tell() % 32 + size, 1)
        file.truncate()
    return head


def config_json(facts: ModelShapeFacts, context: int, version: ModelVersion) -> bytes:
    """The config.json of a folder with this shape."""
    model_format = version.spec.model_format
    fields = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": facts.layers,
        "num_attention_heads": facts.heads,
        "num_key_value_heads": facts.kv_heads,
        "head_dim": facts.head_dim,
        "hidden_size": facts.hidden,
        "vocab_size": facts.vocab,
        "max_position_embeddings": context,
        "torch_dtype": "float16",
        "tie_word_embeddings": facts.tied,
    }
    if model_format in ("gptq", "awq"):
        fields["quantization_config"] = {"quant_method": model_format, "bits": 4}
    return json.dumps(fields).encode()


def folder_bytes(facts: ModelShapeFacts, version: ModelVersion) -> int:
    """Bytes of the safetensors of a folder: 16 bits, or 4 with groups of 128 outside the vocabulary."""
    if version.spec.model_format == "pytorch":
        return facts.parameters * 2
    outside = facts.vocab * facts.hidden * (1 if facts.tied else 2)
    packed = (facts.parameters - outside) * (4 + (16 + 4) / 128) / 8
    return int(packed) + outside * 2
