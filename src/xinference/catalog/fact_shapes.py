"""Shapes from the metadata of the facts: layers, heads, experts and the number of parameters. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xinference.catalog.models import ModelShapeFacts

#: Stored elements of one token and layer with latent attention: DeepSeek's rank of 512 and 64 rotated elements, which
#: all later models have; the exceptions by architecture.
LATENT_DIM = 576
LATENT_DIMS = {"MiniCPM3ForCausalLM": 288}
#: Models whose makers' facts leave the interval out: every n-th layer has full attention.
INTERVALS = {"Qwen3NextForCausalLM": 4}
#: Models with fewer billions of parameters often store the embedding matrix and the output matrix once.
_TIED_BELOW = 5.0
#: Maximum difference of the computed number of parameters from the size in the name.
_TOLERANCE = 0.2


def shape_of(
    metadata: Mapping[str, Any], billions: float, architecture: str, *, sparse: bool, stored_parameters: int | None
) -> ModelShapeFacts:
    """The shape of one size.

    Args:
        billions: the size in the registry.
        sparse: whether only a part of the parameters computes a token.
        stored_parameters: the exact number, if the index of unpacked weights told it.
    """
    heads, hidden = metadata["num_attention_heads"], metadata["hidden_size"]
    head_dim = metadata.get("head_dim") or hidden // heads
    latent = metadata.get("architecture_type") == "mla"
    tied, parameters = _parameters(metadata, billions, architecture, head_dim)
    if sparse or latent or metadata.get("num_experts") or metadata.get("architecture_type") == "moe":
        tied, parameters = False, int(billions * 1e9)
    return ModelShapeFacts(
        parameters=stored_parameters or parameters,
        layers=metadata["num_hidden_layers"],
        heads=heads,
        kv_heads=metadata.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        hidden=hidden,
        vocab=metadata["vocab_size"],
        tied=tied,
        experts=metadata.get("num_experts"),
        experts_per_token=metadata.get("num_experts_per_tok"),
        full_attention_interval=metadata.get("full_attention_interval") or INTERVALS.get(architecture, 1),
        latent_dim=LATENT_DIMS.get(architecture, LATENT_DIM) if latent else None,
    )


def _parameters(metadata: Mapping[str, Any], billions: float, architecture: str, head_dim: int) -> tuple[bool, int]:
    """Whether the vocabulary's matrix is stored once, and the number of parameters of a dense model.

    If a usual decoder of this shape has another number than the size says, the size is taken.
    """
    hidden, heads = metadata["hidden_size"], metadata["num_attention_heads"]
    keys = metadata.get("num_key_value_heads") or heads
    vocabulary = metadata["vocab_size"] * hidden
    attention = 2 * hidden * head_dim * (heads + keys)
    layer = attention + 3 * hidden * metadata["intermediate_size"] + 2 * hidden
    once = vocabulary + metadata["num_hidden_layers"] * layer + hidden
    counts = {True: once, False: once + vocabulary}
    size = billions * 1e9
    if architecture.startswith("Gemma"):
        tied = True
    else:
        tied = billions < _TIED_BELOW and abs(counts[True] - size) < abs(counts[False] - size)
    count = counts[tied]
    return tied, count if abs(count - size) <= _TOLERANCE * size else int(size)
