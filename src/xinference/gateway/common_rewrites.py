"""Converts the fields of a common chat that engines read in other forms, without decoding its body.

Many clients send them with each request: the format of answers, and whether the model thinks. Each is a member of the
body, whose bytes are replaced.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from xinference.engines.dialect import Dialect
from xinference.gateway.request_document import RequestDocument
from xinference.protocol.common_chats import CommonChat

FORMAT, THINKING, ARGUMENTS = "response_format", "enable_thinking", "chat_template_kwargs"


#: A switch in a body, and the same as an argument of the template, for off and on.
_TEXTS = b"false", b"true"
_SWITCHES = tuple(b'"chat_template_kwargs":{"enable_thinking":%b,"thinking":%b}' % (text, text) for text in _TEXTS)


def rewrite_common(dialect: Dialect, chat: CommonChat, document: RequestDocument) -> None:
    """Convert these fields of a common chat.

    Raises:
        Refusal: 400, the engine cannot follow the schema of the answer.
    """
    switch = chat.enable_thinking
    if switch is not None:
        if chat.chat_template_kwargs is None:
            document.exchange(b'"enable_thinking":', _TEXTS[switch], _SWITCHES[switch])
        else:
            fields = document.fields
            document.put(fields, ARGUMENTS, thinking_arguments(switch, fields[ARGUMENTS]))
            document.remove(fields, THINKING)
    if chat.response_format is not UNSET and FORMAT in dialect.fields:
        text = bytes(chat.response_format)
        changed = FORMATS.of_engine(dialect, text)
        if changed is not None:
            document.exchange(b'"response_format":', text, b'"response_format":' + changed)


def thinking_arguments(value: bool, further: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a chat template that set whether the model thinks; some templates call it ``thinking``."""
    return {THINKING: value, "thinking": value} | further


class EngineFormats:
    """Remembers what an engine gets in place of a format: the requests of a program repeat it."""

    def __init__(self, max_bytes: int = 1024 * 1024, maximum: int = 1024) -> None:
        """`max_bytes` limits the formats that are remembered, and `maximum` their number."""
        self._max_bytes = max_bytes
        self._maximum = maximum
        self._bytes = 0
        self._formats: dict[tuple[str, bytes], bytes | None] = {}

    def of_engine(self, dialect: Dialect, text: bytes) -> bytes | None:
        """The JSON of the format for an engine that converts it; None: the same.

        Raises:
            Refusal: 400, the engine cannot follow its schema.
        """
        key = (dialect.engine, text)
        try:
            return self._formats[key]
        except KeyError:
            changed = _converted(dialect, text)
        size = len(text) + len(changed or b"")
        if self._bytes + size > self._max_bytes or len(self._formats) >= self._maximum:
            self._formats.clear()
            self._bytes = 0
        self._formats[key] = changed
        self._bytes += size
        return changed


FORMATS = EngineFormats()


def _converted(dialect: Dialect, text: bytes) -> bytes | None:
    value = msgspec.json.decode(text)
    body: dict[str, Any] = {"messages": [], FORMAT: value}
    dialect.fields[FORMAT](body, value)
    return None if body[FORMAT] == msgspec.json.decode(text) else msgspec.json.encode(body[FORMAT])
