"""`xinference chat` and `generate`: one request, or a conversation at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from xinference.cli.connection import URL_OPTION, Target, with_server_options
from xinference.cli.conversation import answer_once, converse
from xinference.cli.model_choice import choose_model
from xinference.cli.options.completion import complete_uid
from xinference.cli.options.json_option import json_option
from xinference.cli.options.numbers import IntegerRange, NumberRange
from xinference.cli.output import print_json, size_in_billions
from xinference.cli.piped_text import piped_text
from xinference.cli.turns import Chat, Generate, Talk
from xinference.errors import Problem

if TYPE_CHECKING:
    from xinference.client import Client

Json = dict[str, Any]
Place = tuple[str, str, dict[str, str]]
"""The uid of a model, the URL of its server, and the headers of a request."""
NewTalk = Callable[[Place, Json], Talk]
"""Makes a conversation with a model, whose requests have these further fields."""
#: Number of tokens of a completion for which the user names none.
COMPLETION_TOKENS = 512


def answer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of an answer."""
    for option in (
        click.option(
            "--verbose", is_flag=True,
            help="Show the tokens, the speed and the time to the first token after each answer.",
        ),
        click.option(
            "--stream/--no-stream", default=True,
            help="Show the answer while it is generated (the default), or when it is complete.",
        ),
        click.option(
            "--temperature", type=NumberRange(min=0),
            help="Sampling temperature; 0: always the most likely token.",
        ),
        click.option(
            "--max-tokens", "--max_tokens", type=IntegerRange(min=1),
            help="Maximum number of tokens in an answer. [default: in a chat, the rest of the context; for generate, "
            "512 or half of the context, whichever is smaller]",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def with_request_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options and arguments of `chat` and `generate`."""
    for option in (
        json_option,
        answer_options,
        click.argument("words", metavar="[NAME] [PROMPT]", nargs=-1, shell_complete=complete_uid),
        click.option(
            "-u",
            "--model-uid",
            shell_complete=complete_uid,
            help="The model's uid. [default: NAME, else the only ready model]",
        ),
    ):
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


_CHAT_EXAMPLES = """\b
Examples:
  xinference chat                             talk to the only ready model
  xinference chat smollm2-instruct            talk to this model
  xinference chat smollm2-instruct "Hello!"   one answer
  xinference chat "Sum this up:" < notes.txt  one answer about a text
"""


@click.command(cls=TalkCommand, epilog=_CHAT_EXAMPLES)
@click.option("--system", help="System message of the conversation.")
@with_request_options
def chat(target: Target, words: Sequence[str], system: str | None, **options: Any) -> None:
    """Chat with a model.

    PROMPT and standard input are joined into one question, which gets one answer. Without either, a conversation
    starts.

    A single argument is NAME if a running model has that name, otherwise it is PROMPT.
    """
    _talk(target, words, new_chat(system), **options)


def new_chat(system: str | None) -> NewTalk:
    """Makes chats that begin with a system message; None: without one."""
    from xinference.client import RESTfulChatModelHandle

    def new_talk(place: Place, config: Json) -> Talk:
        history = [{"role": "system", "content": system}] if system else []
        return Chat(RESTfulChatModelHandle(*place, url_name=URL_OPTION), config, history)

    return new_talk


@click.command(cls=TalkCommand)
@with_request_options
def generate(target: Target, words: Sequence[str], **options: Any) -> None:
    """Complete PROMPT and standard input; without either, ask for prompts interactively.

    A single argument is NAME if a running model has that name, otherwise it is PROMPT.
    """
    from xinference.client import RESTfulGenerateModelHandle

    def new_talk(place: Place, config: Json) -> Talk:
        return Generate(RESTfulGenerateModelHandle(*place, url_name=URL_OPTION), config)

    _talk(target, words, new_talk, most_tokens=most_completion_tokens, **options)


def most_completion_tokens(model: Json) -> int:
    """Maximum number of tokens of a completion for which the user names none.

    A base model does not end its text by itself, and some engines stop after 16 tokens if a request names no number.
    Some engines refuse a prompt and a number that exceed the context together: half of a small context is the prompt's.
    """
    context = model.get("context_length")
    return max(1, min(COMPLETION_TOKENS, context // 2)) if isinstance(context, int) else COMPLETION_TOKENS


def _talk(
    target: Target,
    words: Sequence[str],
    new_talk: NewTalk,
    *,
    model_uid: str | None,
    as_json: bool,
    max_tokens: int | None,
    most_tokens: Callable[[Json], int] | None = None,
    **options: Any,
) -> None:
    """Ask a model.

    Args:
        most_tokens: the number of tokens if `max_tokens` is None, from the model's entry; None: the server chooses.
    """
    if len(words) > 2 - bool(model_uid):
        raise click.UsageError("There are too many arguments. Put the prompt in quotes.")
    piped = piped_text()
    if not words and not piped:
        _require_terminal(as_json)
    with target.connect() as client:
        uid, prompt, model = choose_model(client, words, model_uid)
        place = (uid, client.base_url, client.auth_headers)
        if max_tokens is None and most_tokens is not None:
            max_tokens = most_tokens(model or _entry(client, uid))
    text = "\n\n".join(part for part in (prompt, piped) if part)
    if not text:
        _require_terminal(as_json)
    talk_with(new_talk, place, text, model, as_json=as_json, max_tokens=max_tokens, **options)


def _entry(client: Client, uid: str) -> Json:
    """The model's entry in the list of the server; empty: it has none, or the key may not read the list."""
    try:
        return next((entry for entry in client.list_instances() if entry.get("model_uid") == uid), {})
    except Problem:
        return {}


def _require_terminal(as_json: bool) -> None:
    """Without a prompt there is a conversation, for which standard input must be a terminal."""
    if as_json or not sys.stdin.isatty():
        raise click.UsageError("There is no prompt, neither as an argument nor on standard input.")


def talk_with(
    new_talk: NewTalk,
    place: Place,
    text: str,
    model: Json,
    *,
    as_json: bool = False,
    verbose: bool,
    **config: Any,
) -> None:
    """One answer to `text`; without a text a conversation.

    Args:
        model: the model's entry in the list of the server, for the banner.
    """
    config = {name: value for name, value in config.items() if value is not None}
    if as_json:
        config["stream"] = False
    elif verbose and config["stream"]:
        config["stream_options"] = {"include_usage": True}
    talk = new_talk(place, config)
    with talk.model:
        if as_json:
            print_json(talk.whole_answer(text))
        elif text:
            answer_once(talk, text, verbose=verbose)
        else:
            converse(talk, banner(place[0], model), verbose=verbose)


def banner(uid: str, model: Json) -> str:
    """The first line of a conversation."""
    billions, context = model.get("model_size_in_billions"), model.get("context_length")
    facts = [
        size_in_billions(billions) if billions else None,
        model.get("quantization"),
        f"{context} tokens of context" if context else None,
    ]
    known = ", ".join(str(fact) for fact in facts if fact and fact != "none")
    return f"{uid}{f' ({known})' if known else ''}\n/help lists the commands; /exit or Ctrl-D leaves the conversation."
