"""Computes texts of different lengths without padding: their tokens are one row, and only the attention is padded.

The linear layers, where most of the time is spent, compute the tokens that there are. Attention is computed within each
text. Only for encoders whose layers treat each token alone outside of the attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

NAME = "xinference_packed"
#: Encoders whose positions are a number for each token -> the first position, from the configuration.
FIRST_POSITION: dict[str, Callable[[Any], int]] = {
    "BertModel": lambda config: 0,
    "RobertaModel": lambda config: int(config.pad_token_id) + 1,
    "XLMRobertaModel": lambda config: int(config.pad_token_id) + 1,
}


@dataclass(frozen=True, eq=False)
class Layout:
    """The places of the tokens of several texts in one row, and in a table with a row for each text."""

    texts: int
    longest: int
    places: Tensor
    """The place in the table, row after row, of each token."""
    mask: Tensor
    """Which places of the table have a token."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Layout:
        """The layout of texts with these numbers of tokens."""
        longest = max(lengths)
        counts = torch.tensor(lengths, device=device)
        mask = torch.arange(longest, device=device) < counts[:, None]
        places = mask.flatten().nonzero()[:, 0]
        return cls(len(lengths), longest, places, mask)

    def positions(self, tokens: Tensor, first: int) -> Tensor:
        """The position of each token in its text.

        With a first position above 0, the number below it is that of the padding token and of its position; a text may
        have this token, and the models do not count it.
        """
        if first == 0:
            return self.places % self.longest
        counted = self.padded((tokens != first - 1).long())
        return self.packed(counted.cumsum(dim=1) * counted) + first - 1

    def padded(self, row: Tensor) -> Tensor:
        """The vectors of the tokens as a table; the places without a token are zero."""
        table = row.new_zeros(self.texts * self.longest, *row.shape[1:])
        table[self.places] = row
        return table.view(self.texts, self.longest, *row.shape[1:])

    def packed(self, table: Tensor) -> Tensor:
        """The vectors of the tokens as a row."""
        return table.reshape(self.texts * self.longest, *table.shape[2:])[self.places]


def prepare(model: Any) -> int | None:
    """Let a model compute texts without padding; returns the first position of a text, None: it can't."""
    first = FIRST_POSITION.get(type(model).__name__)
    config = model.config
    absolute = getattr(config, "position_embedding_type", None) in (None, "absolute")
    if first is None or not absolute or getattr(config, "is_decoder", False) or model.device.type != "cpu":
        return None
    if getattr(config, "_attn_implementation", None) != "sdpa":
        return None
    transformers.AttentionInterface.register(NAME, _attention)
    transformers.AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    model.set_attn_implementation(NAME)
    return first(config)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **arguments: Any
) -> tuple[Tensor, None]:
    """The attention of a layer: of texts without padding, or of one length if there is no layout."""
    layout: Layout | None = arguments.get("layout")
    parts = (query, key, value)
    if layout is not None:
        parts = tuple(layout.padded(each[0].transpose(0, 1)).transpose(1, 2) for each in parts)
    mask = None if layout is None else layout.mask[:, None, None, :]
    made = torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask, scale=arguments.get("scaling"))
    table = made.transpose(1, 2)
    return (table.contiguous() if layout is None else layout.packed(table)[None]), None
