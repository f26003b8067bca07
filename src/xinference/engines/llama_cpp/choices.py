"""What llama.cpp leaves out where one request has several answers, log probabilities of text, or an echo.

It counts the tokens of the first answer only, gives completions the chat's form of log probabilities, and drops
``echo``. Such requests are rare, so they may cost more: their events are read, and a whole answer is put together from
a stream, which alone says what each answer took.
"""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.protocol.errors import Refusal
from xinference.protocol.requests import Completion, Generation, Request
from xinference.routing.table import Route

Event = dict[str, Any]
DATA, DONE = b"data: ", b"[DONE]"


def concerns(route: Route, request: Request) -> bool:
    """Whether this request needs what is here."""
    if not isinstance(request, Generation) or route.engine != "llama.cpp":
        return False
    if (request.n or 1) > 1:
        return True
    return isinstance(request, Completion) and (
        request.logprobs is not None or bool(request.echo) or len(prompts(request)) > 1
    )


def prompts(request: Completion) -> list[Any]:
    """The prompts of one request; a list of token ids is one."""
    prompt = request.prompt
    return list(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]


def as_stream(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a request whose whole answer `gather` puts together."""
    return body | {"stream": True, "stream_options": {"include_usage": True}}


class Events:
    """Puts the events of one streamed answer right; called with whole events, as they come."""

    def __init__(self, request: Generation) -> None:
        self._n = request.n or 1
        self._wants_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._is_text = isinstance(request, Completion)
        self._echo = _echoed(request)
        self._offsets: dict[int, int] = {}
        self._prompt_tokens = self._completion_tokens = 0
        self._last: Event = {}

    def __call__(self, chunk: bytes) -> bytes:
        out: list[bytes] = []
        for event in chunk.split(b"\n\n"):
            data = event.strip()
            if not data.startswith(DATA):
                out.append(data + b"\n\n" if data else b"")
            elif data == DATA + DONE:
                if self._wants_usage and self._last:
                    out.append(_line(self.usage_event()))
                out.append(data + b"\n\n")
            else:
                out += [_line(read) for found in _found(data) if (read := self.read(found)) is not None]
        return b"".join(out)

    def read(self, event: Event) -> Event | None:
        """The event as clients should see it; None: it was only for the counting."""
        usage = event.pop("usage", None)
        if usage:
            self._prompt_tokens += usage.get("prompt_tokens", 0)
            self._completion_tokens += usage.get("completion_tokens", 0)
        if not event.get("choices"):
            return event if "error" in event else None
        self._last = event
        if self._is_text:
            self._complete(event["choices"][0])
        return event

    def usage(self) -> dict[str, int]:
        """Of all answers; a prompt that has several is counted once."""
        prompt = self._prompt_tokens // self._n
        total = prompt + self._completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": self._completion_tokens, "total_tokens": total}

    def usage_event(self) -> Event:
        return self._last | {"choices": [], "usage": self.usage()}

    def _complete(self, choice: dict[str, Any]) -> None:
        """A completion's logprobs in their own form, and the prompt before its first text."""
        index, text = choice["index"], choice.get("text") or ""
        if (choice.get("logprobs") or {}).get("content") is not None:
            choice["logprobs"] = _text_logprobs(choice["logprobs"]["content"], self._offsets.get(index, 0))
        if self._echo and index not in self._offsets:
            text = choice["text"] = self._echo[index // self._n] + text
        self._offsets[index] = self._offsets.get(index, 0) + len(text)


def gather(body: bytes, request: Generation) -> bytes:
    """One whole answer from the stream of it.

    Raises:
        Refusal: 502, the engine gave up in the middle.
    """
    events = Events(request)
    choices: dict[int, dict[str, Any]] = {}
    head: Event = {}
    for line in body.split(b"\n\n"):
        data = line.strip()
        if not data.startswith(DATA) or data == DATA + DONE:
            continue
        for event in filter(None, map(events.read, _found(data))):
            if "error" in event:
                said = event["error"].get("message") if isinstance(event["error"], dict) else event["error"]
                raise Refusal("engine_error", 502, f"The engine broke off its answer: {said}")
            head = head or event
            for part in event["choices"]:
                _add(choices.setdefault(part["index"], {"index": part["index"]}), part)
    kind = str(head.get("object", "")).removesuffix(".chunk")
    whole = head | {"object": kind, "choices": [choices[n] for n in sorted(choices)], "usage": events.usage()}
    return msgspec.json.encode(whole)


def _add(choice: dict[str, Any], part: dict[str, Any]) -> None:
    choice["finish_reason"] = part.get("finish_reason") or choice.get("finish_reason")
    if "text" in part:
        choice["text"] = choice.get("text", "") + (part["text"] or "")
    for name, values in (part.get("logprobs") or {}).items():
        kept = choice["logprobs"] = choice.get("logprobs") or {}
        kept[name] = [*(kept.get(name) or []), *(values or [])]
    if "delta" not in part:
        choice.setdefault("logprobs", None)
        return
    message = choice.setdefault("message", {"role": "assistant", "content": None})
    for name in ("content", "reasoning_content"):
        if part["delta"].get(name):
            message[name] = (message.get(name) or "") + part["delta"][name]
    for call in part["delta"].get("tool_calls") or []:
        _add_call(message.setdefault("tool_calls", []), call)


def _add_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    at = piece.get("index", 0)
    while len(calls) <= at:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    function = piece.get("function") or {}
    calls[at]["id"] = calls[at]["id"] or piece.get("id", "")
    calls[at]["function"]["name"] += function.get("name") or ""
    calls[at]["function"]["arguments"] += function.get("arguments") or ""


def _echoed(request: Generation) -> list[str]:
    """The prompts' texts, if they are to be said again."""
    if not isinstance(request, Completion) or not request.echo:
        return []
    if request.logprobs is not None:
        raise Refusal("unsupported_field", 400, "llama.cpp gives no logprobs of a prompt.", param="echo")
    texts = [prompt for prompt in prompts(request) if isinstance(prompt, str)]
    if len(texts) != len(prompts(request)):
        raise Refusal("unsupported_field", 400, "llama.cpp echoes a prompt of text only.", param="echo")
    return texts


def _text_logprobs(content: list[dict[str, Any]], offset: int) -> dict[str, list[Any]]:
    """OpenAI's older form, with offsets in characters of the answer's text."""
    offsets = []
    for token in content:
        offsets.append(offset)
        offset += len(token["token"])
    return {
        "tokens": [token["token"] for token in content],
        "token_logprobs": [token["logprob"] for token in content],
        "top_logprobs": [{top["token"]: top["logprob"] for top in token["top_logprobs"]} for token in content],
        "text_offset": offsets,
    }


def _found(data: bytes) -> list[Event]:
    """The events in one line; llama.cpp begins the stream of several prompts with a list, or with ``null``."""
    found = msgspec.json.decode(data[len(DATA) :])
    return [event for event in (found if isinstance(found, list) else [found]) if event is not None]


def _line(event: Event) -> bytes:
    return DATA + msgspec.json.encode(event) + b"\n\n"
