"""Removes the prefill from llama.cpp's answers that are not streamed.

A last message of the assistant begins the answer, and llama.cpp continues it. Its streams have only what follows; its
whole answers repeat the beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from xinference.engines.dialect import Body, Exchange
from xinference.engines.prefill import given_beginning, has_prefill, with_one_text
from xinference.protocol.requests import Generation


def with_prefill(request: Generation, exchange: Exchange) -> Exchange:
    """The rewrites of a chat and its answer, with those for a given beginning."""
    if not has_prefill(request):
        return exchange
    cut = PrefillCut(exchange.body)
    # An answer that has a rewrite is assembled from a stream, which repeats nothing.
    is_cut = not request.stream and exchange.answer is None
    return replace(exchange, body=cut.body, answer=cut.chat if is_cut else exchange.answer)


class PrefillCut:
    """Removes the beginning that one request gives from its answer."""

    def __init__(self, earlier: Callable[[Body], Body] | None = None) -> None:
        """
        Args:
            earlier: another rewrite of the request, applied first.
        """
        self._earlier = earlier
        self._begun = ""

    def body(self, body: Body) -> Body:
        """The request with the beginning as one text; called before the answer is rewritten."""
        if self._earlier is not None:
            body = self._earlier(body)
        self._begun = given_beginning(body)
        return with_one_text(body)

    def chat(self, body: bytes) -> bytes:
        """A whole answer to a chat, without the beginning."""
        if not self._begun:
            return body
        document = msgspec.json.decode(body)
        for choice in document.get("choices") or ():
            message = choice.get("message") or {}
            if isinstance(message.get("content"), str):
                message["content"] = message["content"].removeprefix(self._begun)
        return msgspec.json.encode(document)

    def message(self, body: bytes) -> bytes:
        """A whole answer of Anthropic's API, without the beginning."""
        if not self._begun:
            return body
        document = msgspec.json.decode(body)
        for block in document.get("content") or ():
            if block.get("type") == "text":
                block["text"] = block["text"].removeprefix(self._begun)
                break
        return msgspec.json.encode(document)
