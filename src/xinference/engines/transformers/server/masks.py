"""Which earlier positions the positions of a step attend to."""

from __future__ import annotations

from typing import Any

import torch

from .loading import LoadedModel


def attention_mask(loaded: LoadedModel, positions: torch.Tensor, length: int, blocks: list[int] | None = None) -> Any:
    """Additive mask `[row, 1, position, seen]`: 0 where a position attends, the minimum value elsewhere.

    `blocks` are the numbers of the images at all positions: an image's positions attend to each other.
    """
    seen = torch.arange(length, device=positions.device)
    queries = positions[:, None, :, None]
    visible, inside = seen <= queries, None
    if blocks is not None:
        numbers = torch.tensor(blocks, device=positions.device)
        of_queries = numbers[positions][:, None, :, None]
        inside = (of_queries == numbers) & (of_queries >= 0)
        visible = visible | inside
    if loaded.window is None:
        return _additive(visible, loaded.dtype)
    near = visible & (seen > queries - loaded.window)
    near = _additive(near if inside is None else near | inside, loaded.dtype)
    if not loaded.mixed_layers:
        return near
    return {"full_attention": _additive(visible, loaded.dtype), "sliding_attention": near}


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    zeros = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return zeros.masked_fill_(~visible, torch.finfo(dtype).min)
