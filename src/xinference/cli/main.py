"""The entry points: a group that loads a command's module when the command is used, so that --help is instant."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Any

import click

from xinference.cli.options.log_level import LOG_LEVEL
from xinference.cli.output import shown_problems

#: Command -> where it is, and its line in the help.
COMMANDS = {
    "launch": ("xinference.cli.commands.launch:launch", "Run a model."),
    "list": ("xinference.cli.commands.models:list_models", "List the models that were launched."),
    "terminate": ("xinference.cli.commands.models:terminate", "Stop a model, or cancel its launch."),
    "logs": ("xinference.cli.commands.models:logs", "Show what a model's engine wrote."),
    "chat": ("xinference.cli.commands.talk:chat", "Talk with a model."),
    "generate": ("xinference.cli.commands.talk:generate", "Let a model go on with a text."),
    "engine": ("xinference.cli.commands.catalog:engine", "Show which engines run a model."),
    "vllm-models": ("xinference.cli.commands.catalog:vllm_models", "List the models that vLLM can run."),
    "registrations": ("xinference.cli.commands.registrations:registrations", "List the models that can be launched."),
    "register": ("xinference.cli.commands.registrations:register", "Add a model of your own to them."),
    "unregister": ("xinference.cli.commands.registrations:unregister", "Take a model of your own away from them."),
    "download": ("xinference.cli.commands.cache:download", "Fetch a model's weights without running it."),
    "cached": ("xinference.cli.commands.cache:cached", "List the weights on the server's machine."),
    "remove-cache": ("xinference.cli.commands.cache:remove_cache", "Delete a version's weights."),
    "inspect": ("xinference.cli.commands.weights:inspect", "Show what a weight file, folder or repository holds."),
    "convert": ("xinference.cli.commands.weights:convert", "Turn a ggmlv3 file into GGUF."),
    "env": ("xinference.cli.commands.environments:env", "Install, list and remove what the engines run in."),
    "cal-model-mem": ("xinference.cli.commands.memory:cal_model_mem", "Estimate the memory that a model will take."),
    "doctor": ("xinference.cli.commands.doctor:doctor", "Show what this machine has, and what each lack costs."),
    "docs": ("xinference.cli.commands.docs:docs", "Write the models' reference pages."),
    "keys": ("xinference.cli.commands.keys:keys", "Say who may use the server."),
    "login": ("xinference.cli.commands.login:login", "Log in at a server."),
    "serve": ("xinference.cli.commands.serve:serve", "Run the server in this terminal."),
    "stop": ("xinference.cli.commands.stop:stop", "Stop the server and all its models."),
    "stop-cluster": ("xinference.cli.commands.stop:stop_cluster", "The same, for a server that is named."),
    "completion": ("xinference.cli.commands.completion:completion", "Make a shell complete commands and options."),
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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("-H", "--host", hidden=True)
@click.option("-p", "--port", type=click.IntRange(0, 65535), hidden=True)
@click.option("--log-level", type=LOG_LEVEL, hidden=True)
@click.option(
    "-v",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
@click.pass_context
def cli(ctx: click.Context, host: str | None, port: int | None, log_level: str | None) -> None:
    """Turn the name of an open language model into an OpenAI-compatible endpoint."""
    if ctx.invoked_subcommand is None or (host, port, log_level) != (None, None, None):
        from xinference.cli.commands.serve import bare

        bare(host, port, log_level, ctx.invoked_subcommand)


def main() -> None:
    """``xinference``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a model may say what the terminal's encoding cannot
    cli(prog_name="xinference")


def local() -> None:
    """``xinference-local``: the server, in this terminal."""
    _run("local")


def supervisor() -> None:
    """``xinference-supervisor``: the server, in this terminal."""
    _run("supervisor")


def worker() -> None:
    """``xinference-worker``: says that there are none."""
    _run("worker")


def _run(program: str) -> None:
    with shown_problems():
        load(f"xinference.cli.commands.serve:{program}")(prog_name=f"xinference-{program}")


if __name__ == "__main__":
    main()
