"""Sparse embeddings: the weight of each token of a text, in the form of Xinference 4."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from .errors import RefusedError
from .requests import EmbeddingRequest

_CAUSE = "return_sparse returns weights of tokens"


def check_sparse(request: EmbeddingRequest, loaded: Any) -> None:
    """Refuse a sparse request that the model, or the form of the answer, can't serve.

    Raises:
        RefusedError: 400.
    """
    if loaded.token_weights is None:
        raise RefusedError(
            "The folder of the model has no weights for tokens (sparse_linear.safetensors).", param="return_sparse"
        )
    if request.encoding_format == "base64":
        raise RefusedError(f"{_CAUSE}, which base64 has no form for.", param="encoding_format")
    if request.dimensions is not None:
        raise RefusedError(f"{_CAUSE}, and not vectors of a length.", param="dimensions")


def weights_by_token(tokens: Sequence[int], weights: Sequence[Any], special: Collection[int]) -> dict[str, float]:
    """The greatest weight of each token above 0, by its id; special tokens have none."""
    found: dict[str, float] = {}
    for token, weight in zip(tokens, weights, strict=True):
        if token not in special and weight > 0:
            found[str(token)] = max(float(weight), found.get(str(token), 0.0))
    return found
