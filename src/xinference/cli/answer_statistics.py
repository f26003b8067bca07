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
    started: float = 0.0
    first: float | None = None
    last: float | None = None
    chunks: int = 0

    def begin(self) -> None:
        """Start to measure an answer."""
        self.finish_reason, self.tokens, self.first, self.last, self.chunks = None, None, None, None, 0
        self.started = self.clock()

    def read(self, answer: Json) -> None:
        """Read a chunk, or a whole answer."""
        if usage := answer.get("usage"):
            self.tokens = usage.get("completion_tokens", self.tokens)
        for choice in answer.get("choices", ()):
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            self.last = self.clock()
            self.first = self.last if self.first is None else self.first
            self.chunks += 1

    def cut_note(self, maximum: int | None) -> str | None:
        """A note if the answer was cut at the maximum number of tokens."""
        if self.finish_reason != "length":
            return None
        count = self.tokens or maximum
        return f"(cut at {count} tokens; --max-tokens allows more)" if count else "(cut: the context is full)"

    def speed_note(self) -> str:
        """The number of tokens, tokens per second and the time to the first token."""
        if self.first is None or self.last is None:
            return "(no tokens)"
        tokens = self.tokens or self.chunks
        seconds = self.last - self.first
        speed = f", {(tokens - 1) / seconds:.1f} tokens/s" if tokens > 1 and seconds > 0 else ""
        return f"({tokens} tokens{speed}, first token after {self.first - self.started:.2f} s)"
