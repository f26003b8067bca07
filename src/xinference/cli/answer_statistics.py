"""The tokens and the times of an answer at the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass
class AnswerStatistics:
    """What is known about an answer: why it ended, its tokens and its times in seconds."""

    clock: Callable[[], float] = time.monotonic
    finish_reason: str | None = None
    tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    started: float = 0.0
    first: float | None = None
    last: float | None = None
    chunks: int = 0

    def begin(self) -> None:
        """Start to measure an answer."""
        self.finish_reason, self.tokens, self.first, self.last, self.chunks = None, None, None, None, 0
        self.prompt_tokens, self.cached_tokens = None, 0
        self.started = self.clock()

    def read(self, answer: Json) -> None:
        """Read a chunk, or a whole answer."""
        if usage := answer.get("usage"):
            self.tokens = usage.get("completion_tokens", self.tokens)
            self.prompt_tokens = usage.get("prompt_tokens", self.prompt_tokens)
            self.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        for choice in answer.get("choices", ()):
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if self.first is None and not _has_content(choice):
                continue  # the first event of a chat only has the role
            self.last = self.clock()
            self.first = self.last if self.first is None else self.first
            self.chunks += 1

    def cut_note(self, maximum: int | None) -> str | None:
        """A note if the answer was cut at the maximum number of tokens."""
        if self.finish_reason != "length":
            return None
        if maximum is None:
            count = f" at {self.tokens} tokens" if self.tokens else ""
            return f"(cut{count}: the context is full, or the limit of this model or key is reached)"
        return f"(cut at {self.tokens or maximum} tokens; --max-tokens allows more)"

    def speed_note(self) -> str:
        """The tokens of the answer and of the prompt, tokens per second and the time to the first token."""
        if self.first is None or self.last is None:
            return "(no tokens)"
        tokens = self.tokens or self.chunks
        cached = f", {self.cached_tokens} of them cached" if self.cached_tokens else ""
        prompt = f"{self.prompt_tokens} prompt tokens{cached}, " if self.prompt_tokens else ""
        seconds = self.last - self.first
        speed = f", {(tokens - 1) / seconds:.1f} tokens/s" if tokens > 1 and seconds > 0 else ""
        return f"({prompt}{tokens} output tokens{speed}, first token after {self.first - self.started:.2f} s)"


def _has_content(choice: Json) -> bool:
    """Whether a choice of a chunk or of a whole answer has text, a thought or a call of a tool."""
    said = choice.get("delta") or choice.get("message") or choice
    return any(said.get(name) for name in ("content", "text", "reasoning_content", "reasoning", "tool_calls"))
