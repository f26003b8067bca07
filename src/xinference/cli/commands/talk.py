"""`xinference chat` and `generate`: one request, or a conversation at the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.output import note, show_problem, write
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request

if TYPE_CHECKING:
    from xinference.client import Client, RESTfulChatModelHandle, RESTfulGenerateModelHandle

Json = dict[str, Any]
#: Maximum seconds to wait for a model that is loading.
LOADING_SECONDS = 300.0


class Talk(Protocol):
    """A kind of conversation: its labels, and its requests."""

    prompt_label: str
    answer_label: str

    def turn(self, text: str) -> Iterator[str]:
        """The answer to `text`, in pieces."""
        ...


@dataclass
class Chat:
    """A conversation with its history."""

    model: RESTfulChatModelHandle
    config: Json
    history: list[Json] = field(default_factory=list)
    prompt_label = "User: "
    answer_label = "Assistant: "

    def turn(self, text: str) -> Iterator[str]:
        """Send one message. After an interrupt, the history has the incomplete answer if there is one."""
        messages = [*self.history, {"role": "user", "content": text}]
        answer = ""
        try:
            for piece in self._pieces(messages):
                answer += piece
                yield piece
        finally:
            if answer:
                self.history = [*messages, {"role": "assistant", "content": answer}]

    def _pieces(self, messages: list[Json]) -> Iterator[str]:
        answer = self.model.chat(messages, generate_config=self.config)
        if not self.config["stream"]:
            yield answer["choices"][0]["message"].get("content") or ""
            return
        with closing(answer) as chunks:
            for chunk in chunks:
                for choice in chunk.get("choices", ()):
                    yield choice["delta"].get("content") or ""


@dataclass
class Generate:
    """Independent completions."""

    model: RESTfulGenerateModelHandle
    config: Json
    prompt_label = "Prompt: "
    answer_label = "Completion: "

    def turn(self, text: str) -> Iterator[str]:
        answer = self.model.generate(text, self.config)
        if not self.config["stream"]:
            yield answer["choices"][0]["text"]
            return
        with closing(answer) as chunks:
            for chunk in chunks:
                for choice in chunk.get("choices", ()):
                    yield choice.get("text") or ""


def with_request_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `chat` and `generate`."""
    for option in (
        click.argument("prompt", required=False),
        click.option(
            "--stream/--no-stream", default=True,
            help="Show the answer while it is generated (the default) or as a whole.",
        ),
        click.option(
            "--temperature", type=click.FloatRange(min=0),
            help="Sampling temperature; 0: always the most likely token.",
        ),
        click.option(
            "--max-tokens", "--max_tokens", type=click.IntRange(min=1), default=512, show_default=True,
            help="Maximum number of tokens of an answer.",
        ),
        click.option("-u", "--model-uid", help="The model's uid. [default: the only ready model]"),
    ):  # fmt: skip
        command = option(command)
    return with_server_options(command)


class TalkCommand(click.Command):
    """A command that also accepts ``--stream True`` and ``--stream False``, as in older versions."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = list(args)
        for at, word in enumerate(words[:-1]):
            if word == "--stream" and words[at + 1].lower() in ("true", "false"):
                words[at : at + 2] = ["--stream" if words[at + 1].lower() == "true" else "--no-stream"]
                break
        return super().parse_args(ctx, words)


@click.command(cls=TalkCommand)
@click.option("--system", help="System message of the conversation.")
@with_request_options
def chat(target: Target, model_uid: str | None, prompt: str | None, system: str | None, **config: Any) -> None:
    """Chat with a model: one answer to PROMPT (or standard input), else a conversation."""
    from xinference.client import RESTfulChatModelHandle

    text = _prompt(prompt)
    with RESTfulChatModelHandle(*_model(target, model_uid)) as model:
        talk = Chat(model, _without_none(config))
        if system:
            talk.history.append({"role": "system", "content": system})
        _run(talk, text)


@click.command(cls=TalkCommand)
@with_request_options
def generate(target: Target, model_uid: str | None, prompt: str | None, **config: Any) -> None:
    """Complete PROMPT (or standard input), else one prompt after the other."""
    from xinference.client import RESTfulGenerateModelHandle

    text = _prompt(prompt)
    with RESTfulGenerateModelHandle(*_model(target, model_uid)) as model:
        _run(Generate(model, _without_none(config)), text)


def _model(target: Target, model_uid: str | None) -> tuple[str, str, dict[str, str]]:
    """The arguments of a handle; whether the model exists is not checked, because it may be loading."""
    with target.connect() as client:
        return model_uid or _only_ready(client), client.base_url, client.auth_headers


def _without_none(config: Json) -> Json:
    return {name: value for name, value in config.items() if value is not None}


def _prompt(argument: str | None) -> str | None:
    """The prompt of a single request; None for a conversation at the terminal."""
    if argument is not None or sys.stdin.isatty():
        return argument
    piped = sys.stdin.read()
    if not piped.strip():
        raise click.UsageError("There is no prompt, neither as an argument nor on standard input.")
    return piped


def _only_ready(client: Client) -> str:
    instances = client.list_instances()
    ready = [instance["model_uid"] for instance in instances if instance.get("status") == "READY"]
    if len(ready) == 1:
        return str(ready[0])
    if ready:
        raise bad_request(f"Several models are ready: {', '.join(ready)}.", hint="Choose one with --model-uid.")
    loading = [i["model_uid"] for i in instances if i.get("status") not in ("ERROR", "TERMINATING")]
    raise Problem(
        Code.NO_MODEL_READY,
        "No model is ready" + (f"; still loading: {', '.join(loading)}." if loading else "."),
        hint="Give --model-uid to wait for one." if loading else "Launch one with `xinference launch`.",
    )


def _run(talk: Talk, text: str | None) -> None:
    if text is None:
        _converse(talk)
        return
    for piece in _retry_while_loading(talk, text):
        write(piece)
    click.echo()


def _converse(talk: Talk) -> None:
    """Run turns until an empty line or the end of the input."""
    import readline  # noqa: F401 -- adds line editing to input()

    while text := _read_line(talk.prompt_label):
        write(talk.answer_label)
        pieces = _retry_while_loading(talk, text)
        try:
            for piece in pieces:
                write(piece)
        except KeyboardInterrupt:
            pieces.close()  # stops the answer; the conversation continues
        except Problem as problem:
            click.echo()
            if problem.code in (Code.NO_SERVER, Code.SERVER_GONE):
                raise
            show_problem(problem)
            continue
        click.echo("\n")


def _read_line(label: str) -> str:
    try:
        return input(label).strip()
    except EOFError:
        click.echo()
        return ""


def _retry_while_loading(talk: Talk, text: str) -> Generator[str, None, None]:
    """One turn, which is repeated while the model is loading: no part of an answer has arrived until then."""
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
