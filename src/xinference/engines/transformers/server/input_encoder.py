"""Converts the texts of embedding and rerank requests to the model's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import RefusedError
from .pooled_model import Input, PooledModel
from .requests import EmbeddingRequest, RerankRequest
from .token_codec import TokenCodec


class InputEncoder(TokenCodec):
    """Encodes with the model's own tokenizer. Used by one thread at a time."""

    def __init__(self, loaded: PooledModel) -> None:
        super().__init__(loaded.tokenizer, loaded.vocab_size, loaded.context_length)
        self._loaded = loaded

    def texts(self, request: EmbeddingRequest) -> list[Input]:
        """The inputs of an embedding request: a text, texts, token ids, or lists of them.

        Raises:
            RefusedError: 400: an input is too long or is not valid, or there is no such prompt.
        """
        given = request.input
        items = [given] if isinstance(given, str) or isinstance(given[0], int) else given
        if len({type(item) for item in items}) > 1:
            raise RefusedError("input mixes texts and tokens: all its items must be of one kind.", param="input")
        if not isinstance(items[0], str):
            return [Input(self._checked(item, request.truncate_prompt_tokens)) for item in items]
        prompt = self._prompt(request.prompt_name)
        rows = self._encoded([prompt + str(text) for text in items], None, request.truncate_prompt_tokens, "input")
        skipped = self._prompt_length(prompt)
        return [Input(tokens, types, skipped) for tokens, types in rows]

    def pairs(self, request: RerankRequest) -> list[Input]:
        """The inputs of a rerank request: the query with each document.

        Raises:
            RefusedError: 400: a pair is too long.
        """
        queries, limit = [request.query] * len(request.documents), request.truncate_prompt_tokens
        rows = self._encoded(queries, request.documents, limit, "documents")
        return [Input(tokens, types) for tokens, types in rows]

    def _encoded(
        self, texts: list[str], seconds: list[str] | None, limit: int | None, param: str
    ) -> list[tuple[list[int], list[int] | None]]:
        """Tokens and types of each text, or of each pair of texts."""
        if self._loaded.lower_case:
            texts = [text.lower() for text in texts]
        truncation: dict[str, Any] = {}
        if limit is not None:
            truncation = {"truncation": True, "max_length": self._length(limit, pair=seconds is not None)}
        encoded = self._tokenizer(texts, seconds, return_attention_mask=False, verbose=False, **truncation)
        types: Sequence[Any] = encoded.get("token_type_ids") or [None] * len(texts)
        rows = list(zip(encoded["input_ids"], types, strict=True))
        for tokens, _ in rows:
            self.check_tokens(tokens, param)
        return rows

    def _checked(self, tokens: Any, limit: int | None) -> list[int]:
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise RefusedError("input mixes texts and tokens: all its items must be of one kind.", param="input")
        return self.check_tokens(tokens if limit is None else tokens[: self._length(limit)], "input")

    def _length(self, limit: int, *, pair: bool = False) -> int:
        """The length of truncated inputs: -1 is the longest that the model reads."""
        if limit == -1:
            return self._context_length
        least = self._tokenizer.num_special_tokens_to_add(pair=pair) + 1 + pair
        if limit < least:
            param = "truncate_prompt_tokens"
            raise RefusedError(
                f"{param} is {limit}, and this model's inputs have at least {least} tokens.", param=param
            )
        return min(limit, self._context_length)

    def _prompt(self, name: str | None) -> str:
        """The text that is put before each input."""
        name, prompts = name or self._loaded.default_prompt, self._loaded.prompts
        if name is None or (name in ("query", "document") and name not in prompts):
            return ""
        if name not in prompts:
            known = f"it has {', '.join(prompts)}" if prompts else "it has none"
            raise RefusedError(f"The model has no prompt named {name!r}: {known}.", param="prompt_name")
        return prompts[name]

    def _prompt_length(self, prompt: str) -> int:
        """Number of the tokens of a prompt, with the special token before it."""
        if not prompt or self._loaded.pooling.include_prompt:
            return 0
        tokens = self.encode(prompt, add_special=True)
        # A text ends with a special token, which is not between the prompt and the input.
        return len(tokens) - (tokens[-1] in self._tokenizer.all_special_ids)
