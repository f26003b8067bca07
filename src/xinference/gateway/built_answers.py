"""Answers in the form of another API than the engine's: built from a chat's whole answer, or from its stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from xinference.gateway.engine_answers import chained
from xinference.gateway.engine_requests import EngineCall

DONE = b"[DONE]"
_THOUGHTS = ("reasoning_content", "reasoning")


class AnswerBuilder(Protocol):
    """Builds one answer."""

    def whole(self, body: bytes) -> bytes:
        """The answer for a chat's whole answer."""

    def events(self, chunk: bytes) -> bytes:
        """The answer's events for complete events of a chat's stream."""


def with_builder(call: EngineCall, builder: AnswerBuilder, *, is_stream: bool) -> EngineCall:
    """The call of a chat whose answer `builder` builds."""
    if is_stream:
        return msgspec.structs.replace(call, events=chained(call.events, builder.events))
    return msgspec.structs.replace(call, answer=chained(call.answer, builder.whole))


def data_of(chunk: bytes) -> Iterator[bytes]:
    """The data of each event of complete events; an engine writes each on one line."""
    for line in chunk.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data:"):
            yield line[len(b"data:") :].strip()


def thought_of(message: dict[str, Any]) -> str | None:
    """The thoughts of a message or of a piece of one, under the name of each engine; None: it has none."""
    return next((message[name] for name in _THOUGHTS if message.get(name)), None)
