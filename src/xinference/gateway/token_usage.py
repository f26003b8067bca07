"""Counts an answer's tokens from the bytes that are relayed."""

from __future__ import annotations

import re

from xinference.gateway.http.asgi import Message, Send, Write

#: Bytes kept of an answer's beginning and of its end. Usage stands in one of them: in the last events of a stream,
#: and before or after the `data` or `choices` of a whole answer.
KEPT_BYTES = 4096
#: How far a usage object may reach, its details included.
USAGE_BYTES = 1024
#: Where an engine says nothing, this many bytes of the request are taken for one token.
BYTES_PER_TOKEN = 4

#: Paths at the engine that compute no tokens, they only count or write them.
FREE = frozenset({"/tokenize", "/detokenize", "/apply-template", "/v1/messages/count_tokens"})

#: An unescaped quote before `usage`: text that a model writes has its quotes escaped, and is never found.
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_COUNT = re.compile(
    rb'"(total_tokens|prompt_tokens|completion_tokens|input_tokens|output_tokens'
    rb'|cache_creation_input_tokens|cache_read_input_tokens)"\s*:\s*(\d{1,12})'
)
#: The counts of an engine's own answers, such as those of /infill, which have no `usage`.
_NATIVE = re.compile(rb'"(tokens_evaluated|tokens_predicted)"\s*:\s*(\d{1,12})')


class Metered:
    """Stands between an answer and its client, keeps the answer's ends and counts its events."""

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
        """Pass a chunk on at once, where there is a way."""
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
        """Prompt and answer together; an estimate where the engine does not say. 0 for a refusal.

        A stream has usage if its client asked for it; else an event counts as a token and the prompt by its bytes.
        """
        if not 200 <= self._status < 300:
            return 0
        said = total(self._head, self._tail)
        return request_bytes // BYTES_PER_TOKEN + self._events if said is None else said


def total(head: bytes, tail: bytes) -> int | None:
    """The tokens that an answer's first and last bytes tell of; None if they tell nothing.

    OpenAI's answers have all in one object. Anthropic's streams have the prompt in the first event's and the answer
    in the last one's.
    """
    counts: dict[bytes, int] = {}
    for piece in (head, tail):
        for found in _USAGE.finditer(piece):
            for name, count in _COUNT.findall(piece[found.end() : found.end() + USAGE_BYTES]):
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
