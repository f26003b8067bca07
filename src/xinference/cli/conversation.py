"""A conversation at the terminal: prompts, answers and the commands that start with a slash."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from xinference.cli.options.native_options import parse_value
from xinference.cli.output import INTERRUPTED, clean, note, show_problem, write
from xinference.cli.word_wrap import terminal_wrap
from xinference.error_codes import Code
from xinference.errors import Problem, near

if TYPE_CHECKING:
    from xinference.client import RESTfulChatModelHandle, RESTfulGenerateModelHandle

Json = dict[str, Any]
#: Maximum seconds to wait for a model that is loading.
LOADING_SECONDS = 300.0
#: Maximum seconds between two parts of pasted text.
PASTE_SECONDS = 0.02


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


def answer_once(talk: Talk, text: str, *, verbose: bool = False) -> None:
    """One request: the answer on stdout, the rest on stderr."""
    _show(_patient(talk, text))
    click.echo()
    for line in _notes(talk, verbose):
        note(line)


def converse(talk: Talk, banner: str, *, verbose: bool = False) -> None:
    """Run turns until the user leaves: an empty line, /exit, the end of the input, or Ctrl-C twice.

    Raises:
        SystemExit: the user left with Ctrl-C.
    """
    import readline  # noqa: F401 -- adds line editing to input()

    note(banner)
    for text in _Prompt(talk.prompt_label):
        if text.startswith("/") and "\n" not in text:
            if not run_command(talk, text):
                return
            continue
        write(talk.answer_label)
        pieces = _patient(talk, text)
        try:
            _show(pieces, len(talk.answer_label))
        except KeyboardInterrupt:
            pieces.close()  # stops the answer; the conversation continues
        except Problem as problem:
            click.echo()
            if problem.code in (Code.NO_SERVER, Code.SERVER_GONE):
                raise
            show_problem(problem)
            continue
        click.echo()
        for line in _notes(talk, verbose):
            click.echo(line)
        click.echo()


def _show(pieces: Iterator[str], column: int = 0) -> None:
    """Write an answer as it arrives; on a terminal its lines are broken between words.

    Args:
        column: the columns that are taken on the first line.
    """
    wrap = terminal_wrap(column)
    for piece in pieces:
        if wrap is None:
            write(piece)
        else:
            sys.stdout.write(wrap.feed(clean(piece)))
            sys.stdout.flush()


def _notes(talk: Talk, verbose: bool) -> list[str]:
    cut = talk.statistics.cut_note(talk.config.get("max_tokens"))
    return [line for line in (cut, talk.statistics.speed_note() if verbose else None) if line]


class _Prompt:
    """Asks for the texts of the user, one after the other."""

    def __init__(self, label: str) -> None:
        self._label = label

    def __iter__(self) -> Iterator[str]:
        interrupted = False
        while True:
            try:
                text = read_message(self._label)
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo()
                if interrupted:
                    raise SystemExit(INTERRUPTED) from None
                interrupted = True
                note("Ctrl-C again, Ctrl-D or /exit leaves.")
                continue
            interrupted = False
            if not text:
                return
            yield text


def read_message(label: str) -> str:
    """One message. Pasted lines are one message: the lines that have arrived together belong together."""
    try:
        text = input(label)
    except UnicodeDecodeError:
        note("This line is not UTF-8 text.")
        return read_message(label)
    while sys.stdin.isatty() and sys.stdout.isatty() and (rest := _pasted(sys.stdin.fileno())):
        write(rest)  # it came while input() showed what was typed, so the terminal has not shown it
        text += f"\n{rest}"
        if rest.endswith("\n"):
            break
        text += input()  # the user has not ended the last line yet
    return text.replace("\r", "\n").strip()


def _pasted(descriptor: int) -> str:
    """The rest of a pasted text, which input() has left in the terminal."""
    rest = b""
    while select.select([descriptor], [], [], PASTE_SECONDS)[0]:
        piece = os.read(descriptor, 65536)
        if not piece or piece == b"\x04":
            break
        rest += piece
    return rest.decode("utf-8", "replace").replace("\r", "\n")


def _patient(talk: Talk, text: str) -> Generator[str, None, None]:
    """One turn, retried while the model is loading; no part of an answer has arrived then."""
    from xinference.client.answers import ModelLoading

    deadline = time.monotonic() + LOADING_SECONDS
    waiting = False
    while True:
        try:
            yield from talk.turn(text)
            return
        except ModelLoading as problem:
            if time.monotonic() + problem.retry_after > deadline:
                raise
            if not waiting:
                note(f"{problem.cause} Waiting …")
            waiting = True
            time.sleep(problem.retry_after)


HELP = {
    "/help": "show these commands",
    "/exit, /bye": "leave (also Ctrl-D, or an empty line)",
    "/clear": "forget the conversation; the system message stays",
    "/system [TEXT]": "set the system message; without TEXT show it",
    "/set [NAME VALUE]": "set a field, such as temperature 0.2; alone: show them",
    "/save FILE": "write the conversation to a JSON file",
}


def run_command(talk: Talk, line: str) -> bool:
    """Run a command such as ``/help``; False: the user leaves."""
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    match word.lower():
        case "/exit" | "/bye" | "/quit":
            return False
        case "/help" | "/?":
            for name, meaning in HELP.items():
                click.echo(f"  {name:<19} {meaning}")
            click.echo("  Ctrl-C              stop the answer")
        case "/set":
            _set(talk, rest)
        case "/clear" | "/system" | "/save" if not isinstance(talk, Chat):
            note(f"{word} is a command of `xinference chat`.")
        case "/clear":
            assert isinstance(talk, Chat)
            talk.clear()
            note("The conversation is forgotten.")
        case "/system":
            assert isinstance(talk, Chat)
            if rest:
                talk.set_system(rest)
            note(f"System message: {talk.system}" if talk.system else "There is no system message.")
        case "/save":
            assert isinstance(talk, Chat)
            _save(talk, rest)
        case _:
            similar = near(word, [name.split()[0].rstrip(",") for name in HELP])
            note(f"There is no command {word}. {f'Did you mean {similar[0]}?' if similar else '/help shows them.'}")
    return True


def _set(talk: Talk, rest: str) -> None:
    name, _, value = rest.partition(" ")
    if name == "system" and isinstance(talk, Chat):
        talk.set_system(value.strip().strip('"') or None)
    elif name in ("stream", "stream_options"):
        note("The answer is always streamed here.")
    elif name and not value.strip():
        note(f"Give a value: /set {name} VALUE; `none` removes the field.")
    elif name:
        parsed = parse_value(value.strip())
        key = name.replace("-", "_")
        if parsed is None:
            talk.config.pop(key, None)
        else:
            talk.config[key] = parsed
    fields = {key: value for key, value in talk.config.items() if key not in ("stream", "stream_options")}
    note(", ".join(f"{key} = {value}" for key, value in fields.items()) or "No field is set.")


def _save(talk: Chat, name: str) -> None:
    if not name:
        note("Give the name of a file: /save chat.json")
        return
    document = {"model": talk.model.model_uid, "messages": talk.history}
    file = Path(name).expanduser()
    try:
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        note(f"{file} can't be written: {error.strerror}.")
        return
    count = sum(message["role"] != "system" for message in talk.history)
    note(f"Wrote {count} {'message' if count == 1 else 'messages'} to {file}.")
