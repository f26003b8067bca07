"""The beginnings of a request's prompt, as digests: two prompts with the same digest have the same beginning.

A digest covers the tools and the other fields that change the text of the prompt, and everything before its position.
Positions are the ends of messages, and some inside of long texts: documents often precede a question in one message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

#: The paths whose requests have a slot, and the field with the prompt.
PROMPT_FIELDS = {
    "/v1/chat/completions": "messages",
    "/v1/messages": "messages",
    "/v1/completions": "prompt",
    "/infill": "",
}
#: Bytes up to the first position inside a text; after it, the distance is an eighth of the position.
FIRST = 512
#: Number of positions after which no more are made.
MAX_POSITIONS = 512
DIGEST_BYTES = 12
#: Texts in a body with images or sound, which are no tokens of a text.
MEDIA = (b'"image', b'"input_audio', b'"audio_url', b'"video', b'"input_image')

Digest = bytes


@dataclass(frozen=True, slots=True)
class Prompt:
    """The beginnings of one prompt."""

    ends: dict[Digest, int] = field(default_factory=dict)
    """The digest of each beginning -> its length in bytes of the request; the shortest first. Empty: not known."""
    slots: int = 1
    """Number of slots that the request needs."""

    @property
    def size(self) -> int:
        """The length of the longest beginning: the whole prompt."""
        return next(reversed(self.ends.values()), 0)

    def common(self, other: Prompt | None) -> int:
        """The length of the longest beginning that both have."""
        if other is None:
            return 0
        known = other.ends
        return next((size for digest, size in reversed(self.ends.items()) if digest in known), 0)


UNKNOWN = Prompt()


class _Body(msgspec.Struct):
    messages: list[Raw] | UnsetType = UNSET
    prompt: Raw | UnsetType = UNSET
    tools: Raw | UnsetType = UNSET
    tool_choice: Raw | UnsetType = UNSET
    functions: Raw | UnsetType = UNSET
    system: Raw | UnsetType = UNSET
    chat_template_kwargs: Raw | UnsetType = UNSET
    reasoning_format: Raw | UnsetType = UNSET
    enable_thinking: Raw | UnsetType = UNSET
    thinking: Raw | UnsetType = UNSET
    response_format: Raw | UnsetType = UNSET
    n: int | None = None
    n_cmpl: int | None = None
    cache_prompt: bool | None = None


_DECODER = msgspec.json.Decoder(_Body)
#: The fields that stand before the messages in a template or change how it writes them.
_HEAD = (
    "system",
    "tools",
    "tool_choice",
    "functions",
    "chat_template_kwargs",
    "reasoning_format",
    "enable_thinking",
    "thinking",
    "response_format",
)


def read_prompt(path: str, body: bytes, seed: bytes = b"") -> Prompt | None:
    """The beginnings of a request's prompt; None: the request needs no slot, or its body is not understood.

    Args:
        seed: prompts with different seeds have no common beginning.
    """
    name = PROMPT_FIELDS.get(path)
    if name is None:
        return None
    try:
        fields = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    slots = max(fields.n or 1, fields.n_cmpl or 1)
    if slots > 1 or fields.cache_prompt is False or any(mark in body for mark in MEDIA):
        return Prompt(slots=slots)
    if name == "messages" and isinstance(fields.messages, list):
        return Prompt(_ends(path, seed, [*_texts(fields), *fields.messages]))
    text = b"" if fields.prompt is UNSET else bytes(fields.prompt).strip()
    if name == "prompt" and text[:1] == b'"':
        # Without the quote at its end, so that a longer text begins with it.
        return Prompt(_ends(path, seed, [text[:-1]]))
    return UNKNOWN


def with_slot(body: bytes, slot: int) -> bytes:
    """The body with the number of its slot."""
    rest = body[body.index(b"{") + 1 :]
    return b'{"id_slot":%d%b%b' % (slot, b"" if rest.lstrip()[:1] == b"}" else b",", rest)


def prefill_body(body: bytes, slot: int) -> bytes:
    """A request that computes the prompt of `body` in the slot, and one token."""
    fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Raw])
    for name in ("stream", "stream_options", "max_completion_tokens", "n_predict", "logprobs", "top_logprobs", "echo"):
        fields.pop(name, None)
    return msgspec.json.encode({**fields, "max_tokens": 1, "id_slot": slot})


def _texts(fields: _Body) -> list[bytes]:
    """The fields that stand before the messages, each with its name."""
    named = ((name, getattr(fields, name)) for name in _HEAD)
    return [b"%b=%b" % (name.encode(), bytes(value)) for name, value in named if value is not UNSET]


def _ends(path: str, seed: bytes, texts: Sequence[bytes | Raw]) -> dict[Digest, int]:
    digest = blake2b(seed + path.encode(), digest_size=DIGEST_BYTES)
    ends: dict[Digest, int] = {}
    size, position = 0, FIRST
    for text in texts:
        piece = bytes(text)
        begin = 0
        while position < size + len(piece) and len(ends) < MAX_POSITIONS:
            at = position - size
            digest.update(piece[begin:at])
            ends[digest.digest()] = position
            begin = at
            position += max(FIRST, position // 8)
        digest.update(piece[begin:])
        size += len(piece)
        if len(ends) < MAX_POSITIONS:
            ends[digest.digest()] = size
    if size and size not in ends.values():
        ends[digest.digest()] = size
    return ends
