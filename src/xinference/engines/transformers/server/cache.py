"""Keys and values of many sequences: one row each, from position 0, padded at the end to the longest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

#: Positions are added in steps of this size, and at least doubled, so that growing is cheap overall.
POSITIONS_STEP = 256


@dataclass
class Step:
    """The rows and positions that the current forward pass writes."""

    first_row: int
    positions: torch.Tensor
    """`[row, token]`"""
    length: int
    """Positions that are read."""


class RowLayer(CacheLayerMixin):
    """One layer's keys and values, `[row, head, position, element]`."""

    is_sliding = False

    def __init__(self, most_positions: int) -> None:
        super().__init__()
        self.step: Step
        """Set before each pass."""
        self._most_positions = most_positions

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = key_states.new_zeros(0, key_states.shape[1], 0, key_states.shape[3])
        self.values = value_states.new_zeros(0, value_states.shape[1], 0, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        step = self.step
        first, last = step.first_row, step.first_row + len(step.positions)
        self._reserve(last, step.length)
        device = self.keys.device  # the layers of a split model are on several devices
        rows, positions = torch.arange(first, last, device=device)[:, None], step.positions.to(device)
        self.keys[rows, :, positions] = key_states.transpose(1, 2)
        self.values[rows, :, positions] = value_states.transpose(1, 2)
        return self.keys[first:last, :, : step.length], self.values[first:last, :, : step.length]

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a row."""
        self._reserve(target + 1, length)
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.step.length, 0

    def get_seq_length(self) -> int:
        return self.step.length

    def get_max_length(self) -> int:
        return -1

    def _reserve(self, rows: int, length: int) -> None:
        have_rows, _, have_length, _ = self.keys.shape
        if rows <= have_rows and length <= have_length:
            return
        if length > have_length:
            steps = -(-max(length, 2 * have_length) // POSITIONS_STEP)
            have_length = max(length, min(steps * POSITIONS_STEP, self._most_positions))
        rows = max(rows, have_rows)
        self.keys, self.values = _grown(self.keys, rows, have_length), _grown(self.values, rows, have_length)


def _grown(old: torch.Tensor, rows: int, length: int) -> torch.Tensor:
    # Zeros, not uninitialized memory: a masked NaN would still spoil the sum.
    new = old.new_zeros(rows, old.shape[1], length, old.shape[3])
    new[: old.shape[0], :, : old.shape[2]] = old
    return new


class RowCache(Cache):
    """The layers of one batch."""

    def __init__(self, layers: int, most_positions: int) -> None:
        super().__init__(layers=[RowLayer(most_positions) for _ in range(layers)])

    def begin(self, step: Step) -> None:
        """Set the rows and positions of the next pass."""
        for layer in self.layers:
            layer.step = step

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a row to another."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.copy_row(source, target, length)
