"""`xinference chat` and `generate`: one shot, or a conversation at the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import click

from xinference.cli.connection import Target, talks_to_server
from xinference.cli.output import note, show_problem, write
from xinference.errors import Problem, bad_request

if TYPE_CHECKING:
    from xinference.client import Client, RESTfulChatModelHandle, RESTfulGenerateModelHandle

Json = dict[str, Any]
#: How long to wait for a model that is still loading.
LOADING_SECONDS = 300.0


class Talk(Protocol):
    """One way to talk: what a turn is called, and how its answer is asked for."""

    asks: str
    answers: str

    def turn(self, said: str) -> Iterator[str]:
        """The answer to `said`, in pieces."""
        ...


@dataclass
class Chat:
    """A conversation that remembers its turns."""

    model: RESTfulChatModelHandle
    config: Json
    history: list[Json] = field(default_factory=list)
    asks = "User: "
    answers = "Assistant: "

    def turn(self, said: str) -> Iterator[str]:
        """A turn without any answer is forgotten; what an interrupt left of an answer is kept."""
        messages = [*self.history, {"role": "user", "content": said}]
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
    """Completions, each for itself."""

    model: RESTfulGenerateModelHandle
    config: Json
    asks = "Prompt: "
    answers = "Completion: "

    def turn(self, said: str) -> Iterator[str]:
        answer = self.model.generate(said, self.config)
        if not self.config["stream"]:
            yield answer["choices"][0]["text"]
            return
        with closing(answer) as chunks:
            for chunk in chunks:
                for choice in chunk.get("choices", ()):
                    yield choice.get("text") or ""


def talking_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both ways to talk have."""
    for option in (
        click.argument("prompt", required=False),
        click.option("--stream/--no-stream", default=True, help="Show the answer as it comes (the default) or whole."),
        click.option("--temperature", type=click.FloatRange(min=0), help="0: always the likeliest token."),
        click.option(
            "--max-tokens", "--max_tokens", type=click.IntRange(min=1), default=512, show_default=True,
            help="Most tokens of an answer.",
        ),
        click.option("-u", "--model-uid", help="The model's uid. [default: the one that is ready]"),
    ):  # fmt: skip
        command = option(command)
    return talks_to_server(command)


class TalkCommand(click.Command):
    """A command that also takes ``--stream True`` and ``--stream False``, as older versions have it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = list(args)
        for at, word in enumerate(words[:-1]):
            if word == "--stream" and words[at + 1].lower() in ("true", "false"):
                words[at : at + 2] = ["--stream" if words[at + 1].lower() == "true" else "--no-stream"]
                break
        return super().parse_args(ctx, words)


@click.command(cls=TalkCommand)
@click.option("--system", help="What the model is told before the conversation.")
@talking_options
def chat(target: Target, model_uid: str | None, prompt: str | None, system: str | None, **config: Any) -> None:
    """Talk with a model: PROMPT (or what is piped in) for one answer, else a conversation."""
    from xinference.client import RESTfulChatModelHandle

    said = _prompt(prompt)
    with RESTfulChatModelHandle(*_model(target, model_uid)) as model:
        talk = Chat(model, _given(config))
        if system:
            talk.history.append({"role": "system", "content": system})
        _run(talk, said)


@click.command(cls=TalkCommand)
@talking_options
def generate(target: Target, model_uid: str | None, prompt: str | None, **config: Any) -> None:
    """Let a model go on with PROMPT (or what is piped in), else with one text after the other."""
    from xinference.client import RESTfulGenerateModelHandle

    said = _prompt(prompt)
    with RESTfulGenerateModelHandle(*_model(target, model_uid)) as model:
        _run(Generate(model, _given(config)), said)


def _model(target: Target, model_uid: str | None) -> tuple[str, str, dict[str, str]]:
    """The arguments of a handle; it is not asked whether the model is there, since it may be loading."""
    with target.connect() as client:
        return model_uid or _only_ready(client), client.base_url, client.auth_headers


def _given(config: Json) -> Json:
    return {name: value for name, value in config.items() if value is not None}


def _prompt(argument: str | None) -> str | None:
    """What to ask at once; None for a conversation at the terminal."""
    if argument is not None or sys.stdin.isatty():
        return argument
    piped = sys.stdin.read()
    if not piped.strip():
        raise click.UsageError("There is no prompt: neither an argument nor anything on standard input.")
    return piped


def _only_ready(client: Client) -> str:
    instances = client.list_instances()
    ready = [instance["model_uid"] for instance in instances if instance.get("status") == "READY"]
    if len(ready) == 1:
        return str(ready[0])
    if ready:
        raise bad_request(f"Several models are ready: {', '.join(ready)}.", hint="Name one with --model-uid.")
    coming = [i["model_uid"] for i in instances if i.get("status") not in ("ERROR", "TERMINATING")]
    raise Problem(
        "no_model_ready",
        409,
        "No model is ready" + (f"; still loading: {', '.join(coming)}." if coming else "."),
        hint="Name one with --model-uid to wait for it." if coming else "Start one with `xinference launch`.",
    )


def _run(talk: Talk, said: str | None) -> None:
    if said is None:
        _converse(talk)
        return
    for piece in _patient(talk, said):
        write(piece)
    click.echo()


def _converse(talk: Talk) -> None:
    """Turn after turn, until an empty line or the end of the input."""
    import readline  # noqa: F401 -- gives input() its line editing

    while said := _ask(talk.asks):
        write(talk.answers)
        pieces = _patient(talk, said)
        try:
            for piece in pieces:
                write(piece)
        except KeyboardInterrupt:
            pieces.close()  # the model stops; the conversation goes on
        except Problem as problem:
            click.echo()
            if problem.code in ("no_server", "server_gone"):
                raise
            show_problem(problem)
            continue
        click.echo("\n")


def _ask(label: str) -> str:
    try:
        return input(label).strip()
    except EOFError:
        click.echo()
        return ""


def _patient(talk: Talk, said: str) -> Generator[str, None, None]:
    """One turn, tried again while the model is loading: until then nothing of an answer has come."""
    from xinference.client.answers import ModelLoading

    deadline = time.monotonic() + LOADING_SECONDS
    waiting = False
    while True:
        try:
            yield from talk.turn(said)
            return
        except ModelLoading as problem:
            if time.monotonic() + problem.retry_after > deadline:
                raise
            if not waiting:
                note(f"{problem.cause} Waiting …")
            waiting = True
            time.sleep(problem.retry_after)
