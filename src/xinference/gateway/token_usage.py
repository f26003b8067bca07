"""Counts an answer's tokens from the bytes that are relayed."""

from __future__ import annotations

import re

from xinference.gateway.http.asgi import Message, Send, Write

#: Number of first and of last bytes of an answer that are stored. They contain the usage: it is in the last events of
#: a stream, and before or after the `data` or `choices` of a whole answer.
KEPT_BYTES = 4096
#: Maximum length of a usage object, its details included.
USAGE_BYTES = 1024
#: Estimate for answers without usage: this number of request bytes counts as one token.
BYTES_PER_TOKEN = 4

#: Engine paths that only convert or count tokens, and run no model.
FREE = frozenset({"/tokenize", "/detokenize", "/apply-template", "/v1/messages/count_tokens"})

#: Matches only unescaped quotes: those of the text that a model writes are escaped.
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_COUNT = re.compile(
    rb'"(total_tokens|prompt_tokens|completion_tokens|input_tokens|output_tokens'
    rb'|cache_creation_input_tokens|cache_read_input_tokens)"\s*:\s*(\d{1,12})'
)
#: The counts of an engine's own answers, such as those of /infill, which have no `usage`.
_NATIVE = re.compile(rb'"(tokens_evaluated|tokens_predicted)"\s*:\s*(\d{1,12})')


class TokenMeter:
    """Passes an answer on to the client; stores its first and last bytes and counts its events."""

    __slots__ = ("_events", "_head", "_send", "_status", "_tail", "_write")

    def __init__(self, send: Send, write: Write | None = None) -> None:
        self._send = send
        self._write = write
        self._status = 0
        self._head = b""
        self._tail = b""
        self._events = 0

    async def send(self, message: Message) -> None:
        """Pass `message` on."""
        await self._send(message)
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._count(message.get("body", b""))

    def write(self, body: bytes) -> bool:
        """Pass a chunk on without `send`, if the server supports that; returns whether the chunk was written."""
        if self._write is None or not self._write(body):
            return False
        self._count(body)
        return True

    def _count(self, body: bytes) -> None:
        self._events += body.count(b"data:")
        if len(self._head) < KEPT_BYTES:
            self._head += body[: KEPT_BYTES - len(self._head)]
        self._tail = body[-KEPT_BYTES:] if len(body) >= KEPT_BYTES else (self._tail + body)[-KEPT_BYTES:]

    def tokens(self, request_bytes: int) -> int:
        """The tokens of prompt and answer; an estimate if the answer has no usage, and 0 for an error.

        A stream has usage if its client asked for it. The estimate counts each event as one token and the prompt by
        its bytes.
        """
        if not 200 <= self._status < 300:
            return 0
        reported = total(self._head, self._tail)
        return request_bytes // BYTES_PER_TOKEN + self._events if reported is None else reported


def total(head: bytes, tail: bytes) -> int | None:
    """The number of tokens in an answer's usage, from its first and last bytes; None if they contain none.

    OpenAI's answers have one usage object. Anthropic's streams report the prompt's tokens in the first event and the
    answer's in the last.
    """
    counts: dict[bytes, int] = {}
    for piece in (head, tail):
        for match in _USAGE.finditer(piece):
            for name, count in _COUNT.findall(piece[match.end() : match.end() + USAGE_BYTES]):
                counts[name] = max(counts.get(name, 0), int(count))
    if not counts:
        for name, count in _NATIVE.findall(head + tail):
            counts[name] = max(counts.get(name, 0), int(count))
    if not counts:
        return None
    parts = counts.pop(b"total_tokens", 0)
    openai = counts.get(b"prompt_tokens", 0) + counts.get(b"completion_tokens", 0)
    others = sum(count for name, count in counts.items() if name not in (b"prompt_tokens", b"completion_tokens"))
    return max(parts, openai, others)
