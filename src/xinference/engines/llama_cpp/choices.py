"""Repairs llama.cpp's answers to requests for several choices, for log probabilities of a completion, or for an echo.

llama.cpp counts the tokens of the first choice only, answers completions with log probabilities in the form of chats,
and ignores ``echo``. Such requests are rare, so their events are decoded, and a whole answer is assembled from a
stream: only a stream reports the tokens of each choice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from xinference.engines.dialect import UNCHANGED, Body, Exchange
from xinference.engines.llama_cpp.prefill import with_prefill
from xinference.error_codes import Code
from xinference.protocol import exact_requests
from xinference.protocol.common_chats import CommonChat
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import Chat, Completion, Generation

Event = dict[str, Any]
DATA, DONE = b"data: ", b"[DONE]"


def exchange(request: Generation) -> Exchange:
    """The rewrites that this request and its answer need.

    Raises:
        Refusal: 400, llama.cpp cannot serve the requested echo of a stream.
    """
    # Most requests; the checks below cost more.
    if (
        (isinstance(request, CommonChat) or type(request) is exact_requests.Chat)
        and request.n is None
        and not request.logprobs
        and request.messages[-1].role != "assistant"
    ):
        return UNCHANGED
    return with_prefill(request, _repairs(request))


def _repairs(request: Generation) -> Exchange:
    if not _needs_repair(request):
        return UNCHANGED
    wants_no_top, choices = _wants_no_top(request), request.n or 1
    if request.stream:
        return Exchange(body=_with_top if wants_no_top else None, events=EventRepair(request), choices=choices)
    body = (lambda body: _as_stream(_with_top(body))) if wants_no_top else _as_stream
    return Exchange(body=body, answer=partial(gather, request=request), choices=choices)


def _needs_repair(request: Generation) -> bool:
    if (request.n or 1) > 1 or _wants_no_top(request):
        return True
    return isinstance(request, Completion) and (
        request.logprobs is not None or bool(request.echo) or len(prompts(request)) > 1
    )


def _wants_no_top(request: Generation) -> bool:
    """Whether the request asks for log probabilities without alternatives: llama.cpp then gives none, or all."""
    if isinstance(request, Chat):
        return bool(request.logprobs) and not request.top_logprobs
    return isinstance(request, Completion) and request.logprobs == 0


def _with_top(body: Body) -> Body:
    """The request body for one alternative at each token, which is the token itself."""
    return body | ({"top_logprobs": 1} if "messages" in body else {"logprobs": 1})


def prompts(request: Completion) -> list[Any]:
    """The prompts of one request; a list of token ids is one prompt."""
    prompt = request.prompt
    return list(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]


def _as_stream(body: Body) -> Body:
    """The request body for a streamed answer, from which `gather` assembles the whole one."""
    return body | {"stream": True, "stream_options": {"include_usage": True}}


class EventRepair:
    """Repairs the events of one streamed answer; each call gets complete events, in their order."""

    def __init__(self, request: Generation) -> None:
        self._n = request.n or 1
        self._wants_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._is_text = isinstance(request, Completion)
        self._echo = _echo_prompts(request)
        self._drops_top = isinstance(request, Chat) and _wants_no_top(request)
        self._offsets: dict[int, int] = {}
        self._prompt_tokens = self._completion_tokens = 0
        self._last: Event = {}

    def __call__(self, chunk: bytes) -> bytes:
        out: list[bytes] = []
        for text in chunk.split(b"\n\n"):
            data = text.strip()
            if not data.startswith(DATA):
                out.append(data + b"\n\n" if data else b"")
            elif data == DATA + DONE:
                if self._wants_usage and self._last:
                    out.append(_line(self.usage_event()))
                out.append(data + b"\n\n")
            else:
                out += [_line(read) for event in _events_of(data) if (read := self.read(event)) is not None]
        return b"".join(out)

    def read(self, event: Event) -> Event | None:
        """The event in the clients' form; None if it only reports token counts."""
        usage = event.pop("usage", None)
        if usage:
            self._prompt_tokens += usage.get("prompt_tokens", 0)
            self._completion_tokens += usage.get("completion_tokens", 0)
        if not event.get("choices"):
            return event if "error" in event else None
        self._last = event
        if self._is_text:
            self._complete(event["choices"][0])
        elif self._drops_top:
            for token in (event["choices"][0].get("logprobs") or {}).get("content") or ():
                token["top_logprobs"] = []
        return event

    def usage(self) -> dict[str, int]:
        """The token counts of all choices; the prompt of several choices is counted once."""
        prompt = self._prompt_tokens // self._n
        total = prompt + self._completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": self._completion_tokens, "total_tokens": total}

    def usage_event(self) -> Event:
        """The event that reports `usage`."""
        return self._last | {"choices": [], "usage": self.usage()}

    def _complete(self, choice: dict[str, Any]) -> None:
        """Convert a completion's logprobs to the completions' form, and put an echoed prompt before its first text."""
        index, text = choice["index"], choice.get("text") or ""
        if (choice.get("logprobs") or {}).get("content") is not None:
            choice["logprobs"] = _text_logprobs(choice["logprobs"]["content"], self._offsets.get(index, 0))
        if self._echo and index not in self._offsets:
            text = choice["text"] = self._echo[index // self._n] + text
        self._offsets[index] = self._offsets.get(index, 0) + len(text)


def gather(body: bytes, request: Generation) -> bytes:
    """Assemble a whole answer from its stream.

    Raises:
        Refusal: 502, the stream contains an error, or no choice.
    """
    repair = EventRepair(request)
    choices: dict[int, dict[str, Any]] = {}
    head: Event = {}
    for line in body.split(b"\n\n"):
        data = line.strip()
        if not data.startswith(DATA) or data == DATA + DONE:
            continue
        for event in filter(None, map(repair.read, _events_of(data))):
            if "error" in event:
                error = event["error"]
                reason = error.get("message") if isinstance(error, dict) else error
                raise Refusal(Code.ENGINE_ERROR, f"The engine did not complete its answer: {reason}")
            head = head or event
            for part in event["choices"]:
                _add_part(choices.setdefault(part["index"], {"index": part["index"]}), part)
    if not choices:
        raise Refusal(Code.ENGINE_ERROR, "The engine answered without a choice.")
    kind = str(head.get("object", "")).removesuffix(".chunk")
    whole = head | {"object": kind, "choices": [choices[n] for n in sorted(choices)], "usage": repair.usage()}
    return msgspec.json.encode(whole)


def _add_part(choice: dict[str, Any], part: dict[str, Any]) -> None:
    choice["finish_reason"] = part.get("finish_reason") or choice.get("finish_reason")
    if "text" in part:
        choice["text"] = choice.get("text", "") + (part["text"] or "")
    for name, values in (part.get("logprobs") or {}).items():
        logprobs = choice["logprobs"] = choice.get("logprobs") or {}
        logprobs[name] = [*(logprobs.get(name) or []), *(values or [])]
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


def _echo_prompts(request: Generation) -> list[str]:
    """The prompts that the answer repeats; empty if the request does not set ``echo``.

    Raises:
        Refusal: 400, llama.cpp does not report log probabilities of a prompt, or a prompt has no text.
    """
    if not isinstance(request, Completion) or not request.echo:
        return []
    if request.logprobs is not None:
        raise Refusal(Code.UNSUPPORTED_FIELD, "llama.cpp does not report logprobs of a prompt.", param="echo")
    texts = [prompt for prompt in prompts(request) if isinstance(prompt, str)]
    if len(texts) != len(prompts(request)):
        raise Refusal(Code.UNSUPPORTED_FIELD, "llama.cpp echoes only a prompt of text.", param="echo")
    return texts


def _text_logprobs(content: list[dict[str, Any]], offset: int) -> dict[str, list[Any]]:
    """Log probabilities in the completions' form; offsets count characters of the answer's text."""
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


def _events_of(data: bytes) -> list[Event]:
    """The events of one line; llama.cpp begins the stream of several prompts with a list, or with ``null``."""
    decoded = msgspec.json.decode(data[len(DATA) :])
    return [event for event in (decoded if isinstance(decoded, list) else [decoded]) if event is not None]


def _line(event: Event) -> bytes:
    return DATA + msgspec.json.encode(event) + b"\n\n"
