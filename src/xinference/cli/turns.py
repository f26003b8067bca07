"""The two kinds of conversation at the terminal, chats and completions: their requests and their answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from xinference.cli.answer_statistics import AnswerStatistics

if TYPE_CHECKING:
    from xinference.client import RESTfulChatModelHandle, RESTfulGenerateModelHandle

Json = dict[str, Any]


class Talk(Protocol):
    """A kind of conversation: its labels, and its requests."""

    prompt_label: str
    answer_label: str
    config: Json
    statistics: AnswerStatistics

    @property
    def model(self) -> Any:
        """The handle of the model."""
        ...

    def turn(self, text: str) -> Iterator[str]:
        """The answer to `text`, in pieces."""
        ...

    def whole_answer(self, text: str) -> Json:
        """The answer to `text`, as the server sends it."""
        ...


@dataclass
class Chat:
    """A conversation with its history."""

    model: RESTfulChatModelHandle
    config: Json
    history: list[Json] = field(default_factory=list)
    statistics: AnswerStatistics = field(default_factory=AnswerStatistics)
    prompt_label = "User: "
    answer_label = "Assistant: "

    def turn(self, text: str) -> Iterator[str]:
        """Ask once; the history keeps a partial answer after an interrupt, but no turn without an answer."""
        messages = [*self.history, {"role": "user", "content": text}]
        answer = ""
        try:
            for piece in self._pieces(messages):
                answer += piece
                yield piece
        finally:
            if answer:
                self.history = [*messages, {"role": "assistant", "content": answer}]

    def whole_answer(self, text: str) -> Json:
        """The answer to `text`, as the server sends it."""
        messages = [*self.history, {"role": "user", "content": text}]
        answer: Json = self.model.chat(messages, generate_config={**self.config, "stream": False})
        return answer

    def set_system(self, text: str | None) -> None:
        """Replace the system message."""
        self.history = [message for message in self.history if message["role"] != "system"]
        if text:
            self.history.insert(0, {"role": "system", "content": text})

    @property
    def system(self) -> str | None:
        """The system message."""
        return next((str(message["content"]) for message in self.history if message["role"] == "system"), None)

    def clear(self) -> None:
        """Forget the conversation except the system message."""
        self.history = [message for message in self.history if message["role"] == "system"]

    def _pieces(self, messages: list[Json]) -> Iterator[str]:
        self.statistics.begin()
        answer = self.model.chat(messages, generate_config=self.config)
        if not self.config["stream"]:
            self.statistics.read(answer)
            yield answer["choices"][0]["message"].get("content") or ""
            return
        with closing(answer) as chunks:
            for chunk in chunks:
                self.statistics.read(chunk)
                for choice in chunk.get("choices", ()):
                    yield choice["delta"].get("content") or ""


@dataclass
class Generate:
    """Independent completions."""

    model: RESTfulGenerateModelHandle
    config: Json
    statistics: AnswerStatistics = field(default_factory=AnswerStatistics)
    prompt_label = "Prompt: "
    answer_label = "Completion: "

    def whole_answer(self, text: str) -> Json:
        """The answer to `text`, as the server sends it."""
        answer: Json = self.model.generate(text, {**self.config, "stream": False})
        return answer

    def turn(self, text: str) -> Iterator[str]:
        self.statistics.begin()
        answer = self.model.generate(text, self.config)
        if not self.config["stream"]:
            self.statistics.read(answer)
            yield answer["choices"][0]["text"]
            return
        with closing(answer) as chunks:
            for chunk in chunks:
                self.statistics.read(chunk)
                for choice in chunk.get("choices", ()):
                    yield choice.get("text") or ""
