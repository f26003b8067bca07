"""Chats in the forms of vLLM and SGLang: their first event, thoughts, calls of tools, several choices, and usage.

Standard library only: the fake engine imports this by its path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

#: The field of a thought.
THOUGHTS = {"vLLM": "reasoning", "SGLang": "reasoning_content"}
PROMPT_TOKENS = 23


def parts(engine: str, chunks: int, thoughts: int, calls: int) -> list[dict[str, Any]]:
    """The deltas of one choice, one token each."""
    deltas: list[dict[str, Any]] = [{THOUGHTS[engine]: f"thought {n} "} for n in range(thoughts)]
    for number in range(calls):
        call: dict[str, Any] = {"index": number, "id": f"call-{number}", "type": "function"}
        deltas.append({"tool_calls": [{**call, "function": {"name": "look_up", "arguments": ""}}]})
        deltas.append({"tool_calls": [{"index": number, "function": {"arguments": "{}"}}]})
    return deltas + [{"content": f"word{n} "} for n in range(chunks)]


def usage(engine: str, tokens: int, thoughts: int, cached: int) -> dict[str, Any]:
    """The usage of an answer; SGLang has no details of a prompt without cached tokens."""
    counts: dict[str, Any] = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS + tokens}
    counts |= {"completion_tokens": tokens}
    details = {"cached_tokens": cached} if cached or engine == "vLLM" else None
    counts["prompt_tokens_details"] = details
    if engine == "SGLang":
        counts["reasoning_tokens"] = thoughts
    return counts


def events(
    body: dict[str, Any], *, model: str, engine: str, chunks: int, thoughts: int = 0, calls: int = 0, cached: int = 0
) -> Iterator[bytes]:
    """The events of a stream. Both engines report the usage only to a client that asks for it."""
    choices = body.get("n") or 1
    deltas = parts(engine, chunks, thoughts, calls)
    asked = (body.get("stream_options") or {}).get("include_usage", False)
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": model}
    null = {"usage": None} if engine == "SGLang" or asked else {}

    def event(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _sse(head | {"choices": [choice]} | null)

    for index in range(choices):
        yield event(index, {"role": "assistant", "content": ""})
    for number, delta in enumerate(deltas):
        for index in range(choices):
            yield event(index, delta, "stop" if number == len(deltas) - 1 else None)
    if asked:
        yield _sse(head | {"choices": [], "usage": usage(engine, choices * len(deltas), thoughts, cached)})
    yield b"data: [DONE]\n\n"


def whole(
    body: dict[str, Any], *, model: str, engine: str, chunks: int, thoughts: int = 0, calls: int = 0, cached: int = 0
) -> dict[str, Any]:
    """A whole answer."""
    deltas = parts(engine, chunks, thoughts, calls)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(d.get("content", "") for d in deltas)}
    if thoughts:
        message[THOUGHTS[engine]] = "".join(d.get(THOUGHTS[engine], "") for d in deltas)
    if calls:
        function = {"name": "look_up", "arguments": "{}"}
        message["tool_calls"] = [{"id": f"call-{n}", "type": "function", "function": function} for n in range(calls)]
    count = body.get("n") or 1
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": n, "message": message, "finish_reason": "stop"} for n in range(count)],
        "usage": usage(engine, count * len(deltas), thoughts, cached),
    }


def _sse(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
