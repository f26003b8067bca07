"""The name of a model as an argument: ``xinference launch NAME`` is ``xinference launch --model-name NAME``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from xinference.cli.options.completion import complete_model
from xinference.cli.options.version_options import read_name

#: From this ratio on, an option is the misspelled option of the name.
SIMILAR = 0.85

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def name_argument(
    field: str = "model_name",
    option: str = "--model-name",
    *,
    required: bool = True,
    complete: Complete = complete_model,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the argument NAME, and pass the name to the command as `field`, wherever it was given."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.argument("name", metavar="[NAME]", required=False, callback=read_name, shell_complete=complete)
        @wraps(command)
        def with_name(*args: Any, name: str | None, **arguments: Any) -> None:
            arguments[field] = one_name(name, arguments[field], option, required=required)
            command(*args, **arguments)

        return with_name

    return decorate


def one_name(argument: str | None, option_value: str | None, option: str, *, required: bool = True) -> str | None:
    """The name that was given as an argument or by an option.

    Raises:
        click.UsageError: there is no name, or there are two.
    """
    names = {name for name in (argument, option_value) if name}
    if len(names) == 2:
        raise click.UsageError(f"Two names are given, {argument} and {option_value}. Give only one.")
    if not names and required:
        import difflib  # only this refusal needs it

        context = click.get_current_context()
        # An option that a command does not know may be one of the engine's.
        for given in context.obj if isinstance(context.obj, dict) else ():
            if difflib.get_close_matches(wrong := f"--{given.replace('_', '-')}", [option], cutoff=SIMILAR):
                raise click.UsageError(f"No such option '{wrong}'. Did you mean '{option}'?")
        path = context.command_path
        raise click.UsageError(f"Give the name of a model: `{path} NAME` or `{path} {option} NAME`.")
    return names.pop() if names else None
