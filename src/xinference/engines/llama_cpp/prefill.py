"""Removes the beginning of an answer that the request has given from Anthropic's answers.

A last message of the assistant begins the answer. Anthropic's API answers with what follows; llama.cpp repeats it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.protocol.requests import AnthropicMessages

DATA = b"data: "
#: The beginning of a data line with a piece of text, as llama.cpp writes it.
TEXT_DELTA = b'"text_delta"'


def prefill(request: AnthropicMessages) -> str:
    """The beginning of the answer that the request gives; empty: none."""
    last = request.messages[-1]
    if last.role != "assistant" or last.content is None:
        return ""
    if isinstance(last.content, str):
        return last.content
    return "".join(part.text or "" for part in last.content if part.type == "text")


def without_prefill(body: bytes, begun: str) -> bytes:
    """A whole answer without its given beginning."""
    document = msgspec.json.decode(body)
    for block in document.get("content") or ():
        if block.get("type") == "text":
            block["text"] = block["text"].removeprefix(begun)
            break
    return msgspec.json.encode(document)


class PrefillFilter:
    """Removes the beginning from the events of one stream; each call takes complete events in their order."""

    def __init__(self, begun: str) -> None:
        self._left = begun

    def __call__(self, chunk: bytes) -> bytes:
        if not self._left or TEXT_DELTA not in chunk:
            return chunk
        return b"".join(map(self._filtered, chunk.split(b"\n\n")))

    def _filtered(self, event: bytes) -> bytes:
        name, found, data = event.partition(DATA)
        if not event.strip():
            return b""
        if not found or not self._left or TEXT_DELTA not in data:
            return event + b"\n\n"
        document: dict[str, Any] = msgspec.json.decode(data)
        delta = document.get("delta") or {}
        if delta.get("type") != "text_delta":
            return event + b"\n\n"
        text = self._taken(delta["text"])
        if not text:
            return b""
        delta["text"] = text
        return name + DATA + msgspec.json.encode(document) + b"\n\n"

    def _taken(self, text: str) -> str:
        """The part of `text` after the given beginning; all of it if the answer begins in another way."""
        if self._left.startswith(text):
            self._left = self._left[len(text) :]
            return ""
        begun, self._left = self._left, ""
        return text.removeprefix(begun)
