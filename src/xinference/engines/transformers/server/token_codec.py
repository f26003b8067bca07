"""Converts texts to tokens and back with the model's own tokenizer, and checks tokens of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import RefusedError, too_long


class TokenCodec:
    """The tokenizer of one model, with the model's limits. Used by one thread at a time."""

    def __init__(self, tokenizer: Any, vocab_size: int, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._context_length = context_length

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Tokens of a text; special tokens written in it are recognised."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=add_special).input_ids
        return ids

    def check_tokens(self, tokens: list[int], param: str) -> list[int]:
        """The tokens, if they are valid for the model.

        Raises:
            RefusedError: 400: there is no token, one is not in the vocabulary, or the context is too short for them.
        """
        if not tokens:
            raise RefusedError("The prompt has no tokens.", param=param)
        outside = next((t for t in tokens if not 0 <= t < self._vocab_size), None)
        if outside is not None:
            raise RefusedError(f"Token {outside} is not in the vocabulary of {self._vocab_size} tokens.", param=param)
        if len(tokens) > self._context_length:
            raise too_long(len(tokens), self._context_length)
        return tokens

    def decode(self, ids: Sequence[int]) -> str:
        """Text of these tokens, without special ones."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def decode_all(self, ids: Sequence[int]) -> str:
        """Text of these tokens, special ones too."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text
