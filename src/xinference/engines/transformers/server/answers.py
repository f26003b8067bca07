"""OpenAI's answers, complete and in chunks, from the pieces of each choice."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .requests import ChatRequest, CompletionRequest, NamedTool
from .tools import ToolCall, ToolCallParser

if TYPE_CHECKING:  # they import torch
    from .generate import Job
    from .sampling import TokenLogprob
    from .sequence import Piece

TokenBytes = Callable[[int], bytes]


class ChoiceBuilder:
    """One choice of an answer so far; `take` returns the new part, for a stream."""

    def __init__(self, job: Job, index: int, prompt_text: str, token_bytes: TokenBytes) -> None:
        self.index = index
        self.generated = 0
        self.finish: str | None = None
        self._stop: str | None = None
        self._chat = isinstance(job.request, ChatRequest)
        self._wants_logprobs = bool(job.request.logprobs) if self._chat else job.request.logprobs is not None
        self._parser = ToolCallParser(_forced_call(job.request)) if job.parses_tools else None
        self._token_bytes = token_bytes
        self._prompt = job.prompts[index // job.choices].tokens
        self._text = prompt_text
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[tuple[int, TokenLogprob | None]] = []
        self._offset = 0
        self._unsent = prompt_text
        self._logprobs_sent = 0

    def take(self, piece: Piece) -> dict[str, Any] | None:
        """Add a piece; returns the choice of a stream's chunk, or None if there is nothing to send."""
        self.generated = piece.generated
        if piece.prompt_logprobs:
            self._logprobs += zip(self._prompt, piece.prompt_logprobs, strict=True)
        self._logprobs += [(logprob.token, logprob) for logprob in piece.logprobs]
        text, calls = self._parse(piece)
        first_call = len(self._calls)
        self._calls += [call.to_dict() for call in calls]
        self._text += text
        text, self._unsent = self._unsent + text, ""
        if piece.finish is not None:
            self._stop = piece.stop
            self.finish = "tool_calls" if self._calls and piece.finish == "stop" else piece.finish
        if not text and not calls and self.finish is None:
            return None
        return self._chunk(text, self._calls[first_call:], first_call)

    @property
    def opening(self) -> dict[str, Any]:
        """The first chunk of a streamed chat."""
        return {"index": self.index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}

    def whole(self) -> dict[str, Any]:
        """The choice of an answer that is not streamed."""
        if not self._chat:
            return {
                "index": self.index,
                "text": self._text,
                "logprobs": self._completion_logprobs(0) if self._wants_logprobs else None,
                **self._end(),
            }
        message: dict[str, Any] = {"role": "assistant", "content": self._text or (None if self._calls else "")}
        if self._calls:
            message["tool_calls"] = self._calls
        return {
            "index": self.index,
            "message": message,
            "logprobs": self._chat_logprobs(0) if self._wants_logprobs else None,
            **self._end(),
        }

    def _end(self) -> dict[str, Any]:
        """The reason of the end, and the stop string that was found, under vLLM's name."""
        return {"finish_reason": self.finish} | ({} if self._stop is None else {"stop_reason": self._stop})

    def _parse(self, piece: Piece) -> tuple[str, list[ToolCall]]:
        if self._parser is None:
            return piece.text, []
        text, calls = self._parser.add(piece.text)
        if piece.finish == "length":
            rest, call = self._parser.cut()
            return text + rest, calls + ([] if call is None else [call])
        return (text + self._parser.finish() if piece.finish else text), calls

    def _chunk(self, text: str, calls: list[dict[str, Any]], first_call: int) -> dict[str, Any]:
        since, self._logprobs_sent = self._logprobs_sent, len(self._logprobs)
        chunk: dict[str, Any] = {"index": self.index, **self._end()}
        if not self._chat:
            logprobs = self._completion_logprobs(since) if self._wants_logprobs else None
            return chunk | {"text": text, "logprobs": logprobs}
        delta: dict[str, Any] = {"content": text} if text else {}
        if calls:
            delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls, first_call)]
        return chunk | {"delta": delta, "logprobs": self._chat_logprobs(since) if self._wants_logprobs else None}

    def _chat_logprobs(self, since: int) -> dict[str, Any]:
        content = []
        for token, logprob in self._logprobs[since:]:
            assert logprob is not None  # only a completion's prompt has a token without one
            top = [self._entry(t, p) for t, p in logprob.top]
            content.append({**self._entry(token, logprob.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        raw = self._token_bytes(token)
        return {"token": raw.decode(errors="replace"), "logprob": _finite(logprob), "bytes": list(raw)}

    def _completion_logprobs(self, since: int) -> dict[str, Any]:
        answer: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        if since == 0:
            self._offset = 0
        for token, logprob in self._logprobs[since:]:
            text = self._name(token)
            answer["tokens"].append(text)
            answer["token_logprobs"].append(_finite(logprob.logprob) if logprob else None)
            top = {self._name(t): _finite(p) for t, p in logprob.top} if logprob else None
            answer["top_logprobs"].append(top)
            answer["text_offset"].append(self._offset)
            self._offset += len(text)
        return answer

    def _name(self, token: int) -> str:
        return self._token_bytes(token).decode(errors="replace")


class AnswerBuilder:
    """All choices of one request."""

    def __init__(self, job: Job, model: str, prompt_texts: list[str], token_bytes: TokenBytes) -> None:
        self._job = job
        self._chat = isinstance(job.request, ChatRequest)
        kind = "chatcmpl" if self._chat else "cmpl"
        self._common = {"id": f"{kind}-{secrets.token_hex(12)}", "created": job.created, "model": model}
        count = len(job.prompts) * job.choices
        self.choices = [ChoiceBuilder(job, i, prompt_texts[i // job.choices], token_bytes) for i in range(count)]

    def take(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """Add a piece; returns the chunk of a stream, or None if there is nothing to send."""
        choice = self.choices[index].take(piece)
        return self._chunk([choice]) if choice is not None else None

    def opening(self) -> list[dict[str, Any]]:
        """The first chunks of a stream: in a chat, the role of each choice."""
        return [self._chunk([choice.opening]) for choice in self.choices] if self._chat else []

    def closing(self) -> dict[str, Any] | None:
        """The usage at a stream's end, if it was requested."""
        options = self._job.request.stream_options
        return {**self._chunk([]), "usage": self.usage()} if options is not None and options.include_usage else None

    def whole(self) -> dict[str, Any]:
        """The answer that is not streamed."""
        kind = "chat.completion" if self._chat else "text_completion"
        choices = [choice.whole() for choice in self.choices]
        return {**self._common, "object": kind, "choices": choices, "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """Tokens: each prompt once, each choice's answer with its end token."""
        prompt, completion = self._job.prompt_tokens, sum(choice.generated for choice in self.choices)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {**self._common, "object": kind, "choices": choices}


def _forced_call(request: ChatRequest | CompletionRequest) -> str | None:
    """The function that the answer must call, empty for any of them; None: the model chooses."""
    choice = request.tool_choice if isinstance(request, ChatRequest) else None
    if isinstance(choice, NamedTool):
        return choice.function.name
    return "" if choice == "required" else None


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999 for an impossible token."""
    return max(logprob, -9999.0)
