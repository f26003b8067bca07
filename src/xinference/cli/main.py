"""The entry points. A command's module is imported when the command is used, so that --help is fast."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Any

import click

from xinference.cli.options.log_level import LOG_LEVEL
from xinference.cli.output import report_problems

#: Command -> its function, and its line in the help.
COMMANDS = {
    "launch": ("xinference.cli.commands.launch:launch", "Launch a model."),
    "list": ("xinference.cli.commands.models:list_models", "List launched models."),
    "terminate": ("xinference.cli.commands.models:terminate", "Terminate a model, or cancel its launch."),
    "logs": ("xinference.cli.commands.models:logs", "Show the output of a model's engine."),
    "chat": ("xinference.cli.commands.talk:chat", "Chat with a model."),
    "generate": ("xinference.cli.commands.talk:generate", "Complete a prompt."),
    "engine": ("xinference.cli.commands.catalog:engine", "Show which engines run a model."),
    "vllm-models": ("xinference.cli.commands.catalog:vllm_models", "List the models that vLLM supports."),
    "registrations": ("xinference.cli.commands.registrations:registrations", "List the models that can be launched."),
    "register": ("xinference.cli.commands.registrations:register", "Register a custom model."),
    "unregister": ("xinference.cli.commands.registrations:unregister", "Remove a custom model."),
    "download": ("xinference.cli.commands.cache:download", "Download a model's weights without launching it."),
    "cached": ("xinference.cli.commands.cache:cached", "List cached weights on the server's machine."),
    "remove-cache": ("xinference.cli.commands.cache:remove_cache", "Delete the cached weights of a version."),
    "inspect": ("xinference.cli.commands.weights:inspect", "Show the contents of a weight file, folder or repository."),
    "convert": ("xinference.cli.commands.weights:convert", "Convert a ggmlv3 file to GGUF."),
    "env": ("xinference.cli.commands.environments:env", "Install, list and remove engine environments."),
    "cal-model-mem": ("xinference.cli.commands.memory:cal_model_mem", "Estimate the memory that a model requires."),
    "doctor": ("xinference.cli.commands.doctor:doctor", "Check this machine: hardware, engines and their limits."),
    "docs": ("xinference.cli.commands.docs:docs", "Write reference pages of the built-in models."),
    "keys": ("xinference.cli.commands.keys:keys", "Create, list and revoke API keys."),
    "login": ("xinference.cli.commands.login:login", "Log in to a server."),
    "serve": ("xinference.cli.commands.serve:serve", "Run the server in this terminal."),
    "stop": ("xinference.cli.commands.stop:stop", "Stop the server and all its models."),
    "stop-cluster": ("xinference.cli.commands.stop:stop_cluster", "Stop the server at a given endpoint."),
    "completion": ("xinference.cli.commands.completion:completion", "Print a script for shell completion."),
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
        with report_problems():
            return super().invoke(ctx)


def load(reference: str) -> click.Command:
    """The command at ``module:name``."""
    module, _, name = reference.partition(":")
    command = getattr(import_module(module), name)
    assert isinstance(command, click.Command)
    return command


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
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
            stream.reconfigure(errors="replace")  # models write characters that some encodings lack
    cli(prog_name="xinference")


def local() -> None:
    """``xinference-local``: runs the server in this terminal."""
    _run("local")


def supervisor() -> None:
    """``xinference-supervisor``: runs the server in this terminal."""
    _run("supervisor")


def worker() -> None:
    """``xinference-worker``: fails, because workers on other machines are not supported."""
    _run("worker")


def _run(program: str) -> None:
    with report_problems():
        load(f"xinference.cli.commands.serve:{program}")(prog_name=f"xinference-{program}")


if __name__ == "__main__":
    main()
