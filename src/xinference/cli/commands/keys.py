"""`xinference keys`: the API keys of a server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.key_table import COLUMNS, NARROW, WIDE
from xinference.cli.options.json_option import json_option
from xinference.cli.options.numbers import IntegerRange, NumberRange
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import note, print_json
from xinference.cli.table import print_table
from xinference.error_codes import Code
from xinference.errors import Problem

Json = dict[str, Any]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_count = IntegerRange(min=1)
_seconds = NumberRange(min=0, min_open=True)


class Duration(click.ParamType[float]):
    """A duration such as ``30d``, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d{1,9})([smhdwy])", str(value).strip())
        if match is None or not int(match[1]):
            self.fail(f"{value!r} is not a duration, such as 12h, 30d, 8w or 1y.", param, ctx)
        return float(int(match[1]) * _SECONDS[match[2]])


#: The value of an option that removes a limit.
NONE = "none"


class Removable(click.ParamType[Any]):
    """Another type, or ``none``."""

    def __init__(self, type_: click.ParamType[Any]) -> None:
        self.name = type_.name
        self._type = type_

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return NONE if str(value).lower() == NONE else self._type.convert(value, param, ctx)


@click.group()
def keys() -> None:
    """Create, list, change and revoke API keys.

    As soon as one key exists, every request needs a key.
    """


@keys.command()
@click.option("--name", help="Name of the key, and user name for `login`. [default: the id of the key]")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["use", "manage", "monitor"]),
    multiple=True,
    default=("use",),
    show_default=True,
    help="use: send requests to models; manage: everything else, such as launch and terminate; monitor: only read "
    "/metrics and /status. Repeatable.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="UID",
    help="Allow only this model and its adapters. Repeatable. [default: all models]",
)
@click.option(
    "--expires",
    "expires_in",
    type=Duration(),
    metavar="TIME",
    help="Lifetime of the key, such as 12h, 30d or 1y. [default: never expires]",
)
@click.option(
    "--requests-per-minute", type=_count, help="Maximum number of requests per minute; further ones get a 429."
)
@click.option(
    "--tokens-per-minute",
    type=_count,
    help="Maximum number of tokens of prompts and answers per minute; further requests get a 429.",
)
@click.option(
    "--requests-in-flight",
    type=_count,
    help="Maximum number of requests at the same time; further ones get a 429.",
)
@click.option(
    "--max-output-tokens", type=_count, help="Maximum number of tokens of an answer; a request for more gets a 400."
)
@click.option(
    "--max-request-seconds",
    type=_seconds,
    help="Maximum seconds of an engine for one request; a longer request gets a 504.",
)
@click.option(
    "--priority",
    type=click.Choice(["high", "normal", "low"]),
    default="normal",
    show_default=True,
    help="Priority of the key's requests when they wait for a model. A request may set a lower one.",
)
@click.argument("named", metavar="[NAME]", required=False)
@json_option
@with_server_options
def create(
    target: Target, scopes: tuple[str, ...], models: tuple[str, ...], named: str | None, as_json: bool, **fields: Any
) -> None:
    """Create a key with a unique name.

    The key is printed only once: the server stores only its hash.
    """
    if named is not None:
        if fields["name"] not in (None, named):
            raise click.UsageError("NAME and --name differ, but a key has only one name.")
        fields["name"] = named
    with _keys(target) as keys:
        created = keys.create_key(scopes=list(dict.fromkeys(scopes)), models=list(models) or None, **fields)
    if as_json:
        print_json(created)
        return
    _warn_of_unknown(created)
    note(f"Created the key {created['name']}. It is shown only once:")
    click.echo(created["key"])


@keys.command("list")
@wide_option
@json_option
@with_server_options
def list_keys(target: Target, as_json: bool, wide: bool) -> None:
    """List the keys, without their secrets."""
    with _keys(target) as keys:
        entries = keys.list_keys()
    if as_json:
        print_json(entries)
        return
    columns, now = WIDE if wide else NARROW, time.time()
    print_table(columns, [[COLUMNS[name](key, now) for name in columns] for key in entries], wide=wide)
    if not entries:
        note("There are no keys, so requests need none. Create one with `xinference keys create`.")


_limit = Removable(_count)


@keys.command()
@click.argument("name", metavar="NAME|ID")
@click.option("--rename", metavar="NAME", help="New name of the key.")
@click.option(
    "--scope", "scopes", type=click.Choice(["use", "manage", "monitor"]), multiple=True, help="New scopes. Repeatable."
)
@click.option("--model", "models", multiple=True, metavar="UID", help="Allow only this model. Repeatable.")
@click.option("--all-models", is_flag=True, help="Allow all models.")
@click.option(
    "--expires", "expires_in", type=Removable(Duration()), metavar="TIME", help="New lifetime from now on, or `none`."
)
@click.option(
    "--requests-per-minute", type=_limit, metavar="N", help="Maximum number of requests per minute, or `none`."
)
@click.option("--tokens-per-minute", type=_limit, metavar="N", help="Maximum number of tokens per minute, or `none`.")
@click.option(
    "--requests-in-flight", type=_limit, metavar="N", help="Maximum number of requests at the same time, or `none`."
)
@click.option("--max-output-tokens", type=_limit, metavar="N", help="Maximum number of tokens of an answer, or `none`.")
@click.option(
    "--max-request-seconds", type=Removable(_seconds), metavar="N", help="Maximum seconds of a request, or `none`."
)
@click.option(
    "--priority",
    type=click.Choice(["high", "normal", "low"]),
    help="Priority of the key's requests when they wait for a model.",
)
@json_option
@with_server_options
def update(
    target: Target,
    name: str,
    rename: str | None,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    all_models: bool,
    as_json: bool,
    **limits: Any,
) -> None:
    """Change the limits or permissions of a key.

    The change takes effect with the next request. The key itself stays the same.
    """
    if models and all_models:
        raise click.UsageError("--model and --all-models exclude each other.")
    changes: Json = {field: None if value == NONE else value for field, value in limits.items() if value is not None}
    changes |= {"name": rename} if rename else {}
    changes |= {"scopes": tuple(dict.fromkeys(scopes))} if scopes else {}
    changes |= {"models": tuple(models) or None} if models or all_models else {}
    if not changes:
        raise click.UsageError("There is nothing to change: give at least one option.")
    with _keys(target) as keys:
        changed = keys.update_key(name, **changes)
    if as_json:
        print_json(changed)
        return
    _warn_of_unknown(changed)
    note(f"Changed the key {changed['name']} ({changed['id']}).")


@keys.command()
@click.argument("name", metavar="NAME|ID")
@with_server_options
def revoke(target: Target, name: str) -> None:
    """Revoke a key at once.

    Requests still need a key, even after the last key is revoked.
    """
    with _keys(target) as keys:
        key = keys.revoke_key(name)
    note(f"Revoked {key['name']} ({key['id']}).")


@keys.command()
@click.option("-y", "--yes", is_flag=True, help="Delete without confirmation.")
@with_server_options
def off(target: Target, yes: bool) -> None:
    """Delete all keys.

    Requests to a server on loopback then need no key.
    """
    if not yes:
        click.confirm("Delete all keys? Requests to a server on loopback then need no key.", abort=True, err=True)
    with _keys(target) as keys:
        count = keys.forget_keys()["removed"]
    note(f"Deleted {count} {'key' if count == 1 else 'keys'}.")


@contextmanager
def _keys(target: Target) -> Iterator[Any]:
    """The keys of the server at --endpoint; else of this home's server if it runs; else of this home's database."""
    with ExitStack() as stack:
        if target.settings.endpoint:
            yield stack.enter_context(target.connect())
            return
        from xinference.local_commands.keys import keys_of_home

        try:
            keys: Any = stack.enter_context(keys_of_home(target.settings))
        except Problem as problem:
            if problem.code != Code.HOME_TAKEN:
                raise
            keys = stack.enter_context(_of_this_home(target).connect())
        yield keys


def _of_this_home(target: Target) -> Target:
    """The server that uses this home, at its actual address, with the owner's key, which has all scopes."""
    from xinference.client.local_key import local_endpoint

    endpoint = local_endpoint(target.settings)
    return replace(target, api_key=None, settings=replace(target.settings, endpoint=endpoint or ""))


def _warn_of_unknown(key: Json) -> None:
    """Warn of models that do not exist: the name may have a typing error."""
    if unknown := key.get("unknown_models"):
        note(f"Warning: no model has the name {', '.join(unknown)} now.")
