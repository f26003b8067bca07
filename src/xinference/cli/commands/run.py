"""`xinference run`: launches a model unless it runs, and chats with it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from xinference.cli.commands.launch import begin, follow_begun, note_found
from xinference.cli.commands.lifecycle import load_model
from xinference.cli.commands.talk import TalkCommand, answer_options, new_chat, talk_with
from xinference.cli.connection import Target, with_server_options
from xinference.cli.options.name_argument import name_argument
from xinference.cli.options.version_options import version_options
from xinference.cli.output import note
from xinference.cli.piped_text import piped_text

if TYPE_CHECKING:
    from xinference.client import Client

Json = dict[str, Any]
_CHOICES = ("model_engine", "model_size_in_billions", "model_format", "quantization", "model_uid")
_EXAMPLES = """\b
Examples:
  xinference run smollm2-instruct
  xinference run qwen2.5-instruct -s 0.5B "Why is the sky blue?"
"""


class RunCommand(TalkCommand):
    """A command that says where the options of an engine belong, which it does not take."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities or not error.option_name.startswith("--"):
                raise
            hint = (
                "Options of an engine belong to `xinference launch NAME`; `xinference run NAME` uses that model then."
            )
            raise click.UsageError(f"No such option '{error.option_name}'. {hint}", ctx) from None


@click.command(cls=RunCommand, epilog=_EXAMPLES)
@version_options
@click.option("-u", "--model-uid", help="Name of the model in requests. [default: the model's name]")
@click.option("--system", help="System message of the conversation.")
@answer_options
@with_server_options
@name_argument()
@click.argument("prompt", required=False)
def run(
    target: Target,
    prompt: str | None,
    system: str | None,
    verbose: bool,
    stream: bool,
    temperature: float | None,
    max_tokens: int | None,
    **version: Any,
) -> None:
    """Launch a model if it is not running, and chat with it.

    PROMPT and standard input are joined into one question, which gets one answer. Without either, a conversation
    starts.
    """
    piped = piped_text()
    text = "\n\n".join(part for part in (prompt, piped) if part)
    if not text and not sys.stdin.isatty():
        raise click.UsageError("There is no prompt, neither as an argument nor on standard input.")
    with target.connect(start=True) as client:
        model = running(client.list_instances(), version)
        if model is None:
            model = _launch(client, version)
            if model is None:
                return
        elif model.get("status") == "UNLOADED" and not model.get("on_demand"):
            note(f"{model['model_uid']} was unloaded; loading it again.")
            model = load_model(client, str(model["model_uid"]))
        place = (str(model["model_uid"]), client.base_url, client.auth_headers)

    chat = new_chat(system)
    talk_with(chat, place, text, model, verbose=verbose, stream=stream, temperature=temperature, max_tokens=max_tokens)


def running(instances: Sequence[Json], version: Json) -> Json | None:
    """The instance to chat with, if the model needs no launch: it has the name, and all that was asked for."""
    name = version["model_name"]
    active = [
        instance
        for instance in instances
        if instance.get("status") not in ("ERROR", "TERMINATING")
        and all(_same(version.get(choice), instance.get(choice)) for choice in _CHOICES)
    ]
    matching = [i for i in active if i["model_uid"] == name] or [i for i in active if i.get("model_name") == name]
    return matching[0] if matching else None


def _same(wanted: object, value: object) -> bool:
    left, right = (str(each).replace("_", ".").lower() for each in (wanted, value))
    return wanted is None or left == right


def _launch(client: Client, version: Json) -> Json | None:
    """The description of the model once it is ready; None: the launch continues in the background."""
    fields = {name: value for name, value in version.items() if value is not None}
    begun = begin(client, fields)
    uid = note_found(begun)
    description = follow_begun(client, begun)
    return None if description is None else {**description, "model_uid": uid}
