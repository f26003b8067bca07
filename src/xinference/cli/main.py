"""The entry points. A command's module is imported when the command is used, so that --help is fast."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from xinference.cli.options.log_level import LOG_LEVEL
from xinference.cli.options.numbers import IntegerRange
from xinference.cli.output import report_problems
from xinference.engines.listings import LISTINGS
from xinference.errors import join_names, near

#: Command -> its function, and its line in the help.
COMMANDS = {
    "run": ("xinference.cli.commands.run:run", "Launch a model if it is not running, and chat with it."),
    "launch": ("xinference.cli.commands.launch:launch", "Launch a model."),
    "apply": ("xinference.cli.commands.apply:apply", "Launch the models of a file that do not run yet."),
    "list": ("xinference.cli.commands.models:list_models", "List launched models."),
    "describe": ("xinference.cli.commands.describe:describe", "Describe a model, and show how to use it."),
    "top": ("xinference.cli.commands.top:top", "Monitor models, requests and memory on one screen."),
    "tune": (
        "xinference.cli.commands.tune:tune",
        "Measure which engine options make a model fastest.",
    ),
    "terminate": ("xinference.cli.commands.models:terminate", "Terminate a model, or cancel its launch."),
    "unload": ("xinference.cli.commands.lifecycle:unload", "Stop a model's engine; `load` starts it again."),
    "load": ("xinference.cli.commands.lifecycle:load", "Start a model that was unloaded or has failed."),
    "alias": ("xinference.cli.commands.lifecycle:alias", "Give a model further names in requests."),
    "terms": ("xinference.cli.commands.lifecycle:terms", "Show or change when an on-demand model is unloaded."),
    "reload": ("xinference.cli.commands.lifecycle:reload", "Restart a model with changed engine options."),
    "history": ("xinference.cli.commands.lifecycle:history", "List the last launches, including failed ones."),
    "usage": ("xinference.cli.commands.usage:usage", "Show the requests and tokens of models and keys."),
    "logs": ("xinference.cli.commands.models:logs", "Show the output of a model's engine, or the server's log."),
    "chat": ("xinference.cli.commands.talk:chat", "Chat with a model."),
    "generate": ("xinference.cli.commands.talk:generate", "Complete a prompt, without a chat template."),
    "engine": ("xinference.cli.commands.catalog:engine", "Show which versions of a model run on this machine."),
    **{
        each.command: (
            f"xinference.cli.commands.engine_listing:{each.command}",
            f"List the models that {each.engine} supports.",
        )
        for each in LISTINGS
    },
    "registrations": ("xinference.cli.commands.registrations:registrations", "List the models that can be launched."),
    "catalog": (
        "xinference.cli.commands.catalog_updates:catalog",
        "Update the catalog of models without a new release.",
    ),
    "register": ("xinference.cli.commands.registrations:register", "Register a custom model."),
    "unregister": ("xinference.cli.commands.registrations:unregister", "Remove a custom model."),
    "download": ("xinference.cli.commands.cache:download", "Download a model's weights without launching it."),
    "cached": ("xinference.cli.commands.cache:cached", "List cached weights on the server's machine."),
    "remove-cache": ("xinference.cli.commands.cache:remove_cache", "Delete cached weights."),
    "inspect": ("xinference.cli.commands.weights:inspect", "Show the contents of a weight file, folder or repository."),
    "convert": ("xinference.cli.commands.weights:convert", "Convert a ggmlv3 file to GGUF."),
    "env": ("xinference.cli.commands.environments:env", "Install, list and remove engine environments."),
    "cal-model-mem": ("xinference.cli.commands.memory:cal_model_mem", "Estimate the memory that a model requires."),
    "doctor": ("xinference.cli.commands.doctor:doctor", "Check this machine, and show what is missing."),
    "docs": ("xinference.cli.commands.docs:docs", "Write reference pages of the built-in models."),
    "keys": ("xinference.cli.commands.keys:keys", "Create, list, change and revoke API keys."),
    "login": ("xinference.cli.commands.login:login", "Save an API key for a server."),
    "serve": ("xinference.cli.commands.serve:serve", "Run the server, in this terminal or in the background."),
    "stop": ("xinference.cli.commands.stop:stop", "Stop the server and all its models."),
    "restart": ("xinference.cli.commands.restart:restart", "Restart a model, or the server."),
    "service": ("xinference.cli.commands.service:service", "Start the server at boot, with systemd or launchd."),
    "web": ("xinference.cli.commands.web:web", "Open the web page of the server."),
    "cluster": ("xinference.cli.commands.cluster:cluster", "Show and change the machines of a cluster."),
    "stop-cluster": ("xinference.cli.commands.stop:stop_cluster", "Stop a remote server (needs --endpoint)."),
    "completion": ("xinference.cli.commands.completion:completion", "Print the completion script of a shell."),
}


#: Heading of the help -> its commands.
GROUPS = {
    "Run models": (
        "run",
        "launch",
        "apply",
        "list",
        "describe",
        "top",
        "chat",
        "generate",
        "usage",
        "logs",
        "unload",
        "load",
        "alias",
        "terms",
        "reload",
        "tune",
        "terminate",
        "history",
    ),
    "Find models": (
        "registrations",
        "catalog",
        "engine",
        *(each.command for each in LISTINGS),
        "cal-model-mem",
        "inspect",
    ),
    "Manage weights": ("download", "cached", "remove-cache", "convert"),
    "Add custom models": ("register", "unregister"),
    "Manage the server": (
        "serve",
        "web",
        "stop",
        "restart",
        "service",
        "cluster",
        "stop-cluster",
        "keys",
        "login",
        "env",
        "doctor",
    ),
    "Other": ("docs", "completion"),
}
#: The words of other programs -> our command.
ALIASES = {"ps": "list", "ls": "list", "pull": "download", "rm": "remove-cache", "show": "describe"}
#: Words that are no command -> the command to suggest.
_SUGGESTIONS = {
    "start": "serve", "server": "serve", "up": "serve", "kill": "terminate", "delete": "remove-cache",
    "remove": "remove-cache", "models": "registrations", "search": "registrations", "status": "list",
    "info": "describe", "estimate": "cal-model-mem", "down": "stop", "eject": "unload", "shutdown": "stop",
    "version": "--version", "config": "doctor", "configure": "doctor", "settings": "doctor", "check": "doctor",
}  # fmt: skip
_EXAMPLES = """\b
Examples:
  xinference run qwen2.5-instruct -s 0.5B     launch a model and chat with it
  xinference launch smollm2-instruct          launch a model and print its uid
  xinference chat smollm2-instruct "Hello!"   ask one question
  xinference list                             list the launched models
  xinference stop                             stop the server and its models

\b
Aliases: `ps` and `ls` for `list`, `pull` for `download`, `rm` for
`remove-cache`, `show` for `describe`.
`xinference COMMAND --help` describes a command.
"""


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        return load(COMMANDS[name][0]) if name in COMMANDS else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_AS_JSON] = "--json" in args
        refuse_bytes(args)
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = "Options follow the command, such as `xinference list --endpoint URL`."
            raise click.UsageError(f"There is no option {error.option_name} before the command. {hint}", ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(unknown_command(args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in GROUPS.items():
            with formatter.section(heading):
                # One width for all groups, so that their columns are aligned.
                formatter.write_dl([(name.ljust(_NAME_WIDTH), COMMANDS[name][1]) for name in names])

    def invoke(self, ctx: click.Context) -> Any:
        with report_problems(ctx.meta[_AS_JSON]):
            return super().invoke(ctx)


_AS_JSON = "xinference.cli.as_json"
_NAME_WIDTH = max(map(len, COMMANDS))


def unknown_command(word: str) -> str:
    """The message for a word that is no command."""
    suggested = _SUGGESTIONS.get(word.lower())
    similar = [suggested] if suggested else near(word, [*COMMANDS, *ALIASES])
    hint = f"Did you mean {join_names(similar[:3])}?" if similar else "`xinference --help` lists the commands."
    return f"No such command {word!r}. {hint}"


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


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    epilog=_EXAMPLES,
)
@click.option("-H", "--host", hidden=True)
@click.option("-p", "--port", type=IntegerRange(0, 65535), hidden=True)
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
    if (host, port, log_level) != (None, None, None):
        from xinference.cli.commands.serve import serve_from_options

        serve_from_options(host, port, log_level, ctx.invoked_subcommand)
    elif ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def refuse_bytes(args: Sequence[str]) -> None:
    """Refuse arguments that are not text: they can't be sent in a request.

    Raises:
        click.UsageError: a byte of an argument is no part of a character.
    """
    for number, argument in enumerate(args, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"Argument {number} is not UTF-8: {os.fsencode(argument)!r}.") from None


def open_streams() -> None:
    """Open standard streams that are closed on the null device, so that no file takes their number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 -- the stream stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # models write characters that some encodings lack


def main() -> None:
    """``xinference``."""
    open_streams()
    with report_problems():  # of the help, too
        cli(prog_name="xinference")


def local() -> None:
    """``xinference-local``: runs the server in this terminal."""
    _run("local")


def supervisor() -> None:
    """``xinference-supervisor``: runs a server that workers can join."""
    _run("supervisor")


def worker() -> None:
    """``xinference-worker``: runs models on this machine for a supervisor."""
    _run("worker")


def _run(program: str) -> None:
    open_streams()
    with report_problems():
        load(f"xinference.cli.commands.serve:{program}")(prog_name=f"xinference-{program}")


if __name__ == "__main__":
    main()
