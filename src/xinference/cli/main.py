"""The entry points: a group that loads a command's module when the command is used, so that --help is instant."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Any

import click

from xinference.cli.output import shown_problems

#: Command -> where it is, and its line in the help.
COMMANDS = {
    "launch": ("xinference.cli.launch:launch", "Run a model."),
    "list": ("xinference.cli.models:list_models", "List the models that were launched."),
    "terminate": ("xinference.cli.models:terminate", "Stop a model, or cancel its launch."),
    "logs": ("xinference.cli.models:logs", "Show what a model's engine wrote."),
    "chat": ("xinference.cli.talk:chat", "Talk with a model."),
    "generate": ("xinference.cli.talk:generate", "Let a model go on with a text."),
    "engine": ("xinference.cli.catalog:engine", "Show which engines run a model."),
    "registrations": ("xinference.cli.catalog:registrations", "List the models that can be launched."),
    "download": ("xinference.cli.cache:download", "Fetch a model's weights without running it."),
    "cached": ("xinference.cli.cache:cached", "List the weights on the server's machine."),
    "remove-cache": ("xinference.cli.cache:remove_cache", "Delete a version's weights."),
    "inspect": ("xinference.cli.weights:inspect", "Show what a weight file, folder or repository holds."),
    "convert": ("xinference.cli.weights:convert", "Turn a ggmlv3 file into GGUF."),
    "env": ("xinference.cli.environments:env", "Install, list and remove what the engines run in."),
    "cal-model-mem": ("xinference.cli.memory:cal_model_mem", "Estimate the memory that a model will take."),
    "doctor": ("xinference.cli.doctor:doctor", "Show what this machine has, and what each lack costs."),
    "docs": ("xinference.cli.docs:docs", "Write the models' reference pages."),
    "keys": ("xinference.cli.keys:keys", "Say who may use the server."),
    "serve": ("xinference.cli.serve:serve", "Run the server in this terminal."),
    "stop": ("xinference.cli.serve:stop", "Stop the server and all its models."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load(COMMANDS[cmd_name][0]) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        with shown_problems():
            return super().invoke(ctx)


def load(reference: str) -> click.Command:
    """The command at ``module:name``."""
    module, _, name = reference.partition(":")
    command = getattr(import_module(module), name)
    assert isinstance(command, click.Command)
    return command


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from xinference import __version__

        click.echo(f"xinference {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-v",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def cli() -> None:
    """Turn the name of an open language model into an OpenAI-compatible endpoint."""


def main() -> None:
    """``xinference``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a model may say what the terminal's encoding cannot
    cli(prog_name="xinference")


def local() -> None:
    """``xinference-local``: the server, in this terminal."""
    with shown_problems():
        load("xinference.cli.serve:local")(prog_name="xinference-local")


if __name__ == "__main__":
    main()
