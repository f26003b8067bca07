"""Writes GGUF files in the quantizations of the ggufv2 specs from a Hugging Face llama folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.formats.hf_model import QUANTIZATIONS, quantized, read_model, tensor_type
from xinference.formats.convert import gguf_name
from xinference.formats.gguf_writer import MetadataValue, NumberArray, TensorInfo, padding, write_header

GGUF_QUANTIZATIONS = (
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0",
)  # fmt: skip


def write_gguf(folder_hf: Path, quantization: str, out: Path, more: Mapping[str, MetadataValue] | None = None) -> Path:
    """Write the model of `folder_hf` to `out` in one of `GGUF_QUANTIZATIONS`; `more` is added to its metadata."""
    model = read_model(folder_hf)
    infos: list[TensorInfo] = []
    parts: list[bytes] = []
    for name, weights in model.tensors.items():
        kind = tensor_type(name, quantization)
        parts.append(quantized(folder_hf, name, kind))
        infos.append(TensorInfo(gguf_name(name), weights.shape, kind, len(parts[-1])))
    with out.open("wb") as file:
        write_header(file, _metadata(folder_hf, quantization) | dict(more or {}), infos)
        for part in parts:
            file.write(part + bytes(padding(len(part))))
    return out


def _metadata(folder_hf: Path, quantization: str) -> dict[str, MetadataValue]:
    model = read_model(folder_hf)
    template: str = json.loads((folder_hf / "tokenizer_config.json").read_text())["chat_template"]
    return {
        "general.architecture": "llama",
        "general.name": "tiny-llama2-chat",
        "general.file_type": QUANTIZATIONS[quantization.lower()][0],
        "general.quantization_version": 2,
        "llama.context_length": model.context_length,
        "llama.embedding_length": model.n_embd,
        "llama.block_count": model.n_layers,
        "llama.feed_forward_length": model.n_ff,
        "llama.rope.dimension_count": model.n_embd // model.n_head,
        "llama.attention.head_count": model.n_head,
        "llama.attention.head_count_kv": model.n_kv_heads,
        "llama.attention.layer_norm_rms_epsilon": model.rms_norm_eps,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [piece.text.encode() for piece in model.pieces],
        "tokenizer.ggml.scores": NumberArray.of_floats([piece.score for piece in model.pieces]),
        "tokenizer.ggml.token_type": NumberArray.of_integers([piece.type for piece in model.pieces]),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": template,
    }
