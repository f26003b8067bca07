"""Reads the tokens of an answer from its first and last bytes, in the form of each API and engine.

This runs for each request: the object with the counts is found and decoded, and nothing else of the answer.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

#: Number of first and of last bytes of an answer in which its usage is searched. It is in the last events of a stream,
#: and before or after the `data` or `choices` of a whole answer.
SEARCHED_BYTES = 4096
#: Maximum length of a usage object, its details included.
USAGE_BYTES = 1024

#: An object with at most one level of objects inside; without a way back, so that no text makes it slow.
_OBJECT = re.compile(rb'"\w+"\s*+:\s*+(\{(?:[^{}]++|\{[^{}]*+\})*+\})')
#: The counts of an engine's own answers, such as those of /infill, which have no `usage`.
_NATIVE = re.compile(rb'"(tokens_evaluated|tokens_predicted)"\s*:\s*(\d{1,12})')

Count = Annotated[int, Meta(ge=0, le=10**12)] | None


class Tokens(Struct, frozen=True, gc=False):
    """The tokens of one request, as its engine has reported them."""

    prompt: int
    cached: int | None
    """Those tokens of the prompt that were in the engine's cache; None: not reported."""
    output: int
    of_one_choice: bool = False
    """Whether the report is of one choice only, of which the answer may have several."""


class _Details(Struct):
    cached_tokens: Count = None


class _Usage(Struct):
    """The counts of all APIs."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    input_tokens: Count = None
    output_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None


class _Timings(Struct):
    """The counts that llama.cpp adds to its answers."""

    cache_n: Count = None
    prompt_n: Count = None
    predicted_n: Count = None


_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_timings = msgspec.json.Decoder(_Timings).decode


def read_tokens(first: bytes, last: bytes = b"") -> Tokens | None:
    """The tokens of an answer; None if it reports none.

    Args:
        first: the whole answer, or the first piece of it.
        last: the last pieces, if there are several. A whole answer has none.
    """
    piece = last or first
    usage = _usage(piece)
    if usage is None:
        return (last and _from_first(first)) or _of_timings(piece) or _native(piece)
    if usage.prompt_tokens is not None or usage.completion_tokens is not None:
        return Tokens(usage.prompt_tokens or 0, _cached(usage, piece), usage.completion_tokens or 0)
    if usage.output_tokens is not None or usage.input_tokens is not None:
        # Anthropic's streams report the prompt's tokens in the first event, and engines may repeat them in the last.
        return _of_parts(usage, (_first_usage(first) if last else None) or usage)
    if usage.total_tokens is not None:
        return Tokens(usage.total_tokens, None, 0)
    return None


def _usage(piece: bytes) -> _Usage | None:
    found = _find(b'"usage"', piece)
    return None if found is None else _decoded_usage(found)


def _first_usage(piece: bytes) -> _Usage | None:
    """The first report of a piece, which may have several: a short stream can arrive in one piece."""
    at = piece.find(b'"usage"', 0, SEARCHED_BYTES)
    match = _OBJECT.match(piece, at, at + USAGE_BYTES) if at >= 0 else None
    return None if match is None else _decoded_usage(match[1])


def _decoded_usage(found: bytes) -> _Usage | None:
    try:
        return _decode_usage(found)
    except msgspec.MsgspecError:
        return None


def _find(name: bytes, piece: bytes) -> bytes | None:
    """The object of this name. Only unescaped quotes match: those of the text that a model writes are escaped."""
    at = piece.rfind(name, -SEARCHED_BYTES)
    if at < 0 and len(piece) > SEARCHED_BYTES:
        at = piece.rfind(name, 0, SEARCHED_BYTES)
    if at < 0:
        return None
    match = _OBJECT.match(piece, at, at + USAGE_BYTES)
    return None if match is None else match[1]


def _cached(usage: _Usage, piece: bytes) -> int | None:
    if usage.prompt_tokens_details is not None:
        return usage.prompt_tokens_details.cached_tokens
    timings = _timings(piece)
    return None if timings is None else timings.cache_n


def _timings(piece: bytes) -> _Timings | None:
    found = _find(b'"timings"', piece)
    if found is None:
        return None
    try:
        return _decode_timings(found)
    except msgspec.MsgspecError:
        return None


def _of_parts(end: _Usage, begin: _Usage) -> Tokens:
    """The tokens of Anthropic's messages, which count cached tokens apart, or of OpenAI's responses, which do not."""
    details = end.input_tokens_details
    if details is not None:
        return Tokens(end.input_tokens or 0, details.cached_tokens, end.output_tokens or 0)
    read = _larger(end.cache_read_input_tokens, begin.cache_read_input_tokens)
    written = _larger(end.cache_creation_input_tokens, begin.cache_creation_input_tokens)
    prompt = (_larger(end.input_tokens, begin.input_tokens) or 0) + (read or 0) + (written or 0)
    return Tokens(prompt, read, end.output_tokens or 0)


def _larger(one: int | None, other: int | None) -> int | None:
    return max(one or 0, other or 0) if one is not None or other is not None else None


def _from_first(first: bytes) -> Tokens | None:
    """The tokens of an answer whose usage precedes its data, and which came in several pieces."""
    usage = _usage(first)
    if usage is None or usage.total_tokens is None:
        return None
    return Tokens(usage.prompt_tokens or usage.total_tokens, None, usage.completion_tokens or 0)


def _of_timings(piece: bytes) -> Tokens | None:
    timings = _timings(piece)
    if timings is None or timings.predicted_n is None:
        return None
    return Tokens((timings.prompt_n or 0) + (timings.cache_n or 0), timings.cache_n, timings.predicted_n, True)


def _native(piece: bytes) -> Tokens | None:
    ends = piece[:SEARCHED_BYTES] + piece[-SEARCHED_BYTES:]
    if b'"tokens_' not in ends:
        return None
    counts = {name: int(count) for name, count in _NATIVE.findall(ends)}
    return Tokens(counts.get(b"tokens_evaluated", 0), None, counts.get(b"tokens_predicted", 0)) if counts else None
