"""`xinference keys`: who may use the server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import click

from xinference.cli.connection import Target, talks_to_server
from xinference.cli.output import note, print_json, print_table
from xinference.errors import Problem

Json = dict[str, Any]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_count = click.IntRange(min=1)


class Span(click.ParamType[float]):
    """A time such as ``30d``, in seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d{1,9})([smhdwy])", str(value).strip())
        if match is None or not int(match[1]):
            self.fail(f"{value!r} is not a time: write 12h, 30d, 8w or 1y.", param, ctx)
        return float(int(match[1]) * _SECONDS[match[2]])


@click.group()
def keys() -> None:
    """Make, list and revoke keys. From the first one on the server answers nobody without one."""


@keys.command()
@click.option("--name", help="What to call it; also the user name of `login`. [default: its id]")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["use", "manage"]),
    multiple=True,
    default=("use",),
    show_default=True,
    help="use: ask models; manage: launch, terminate and all the rest. Again for both.",
)
@click.option(
    "--model", "models", multiple=True, metavar="UID", help="Only this model and its adapters. Again for more."
)
@click.option("--expires", "expires_in", type=Span(), metavar="TIME", help="Such as 12h, 30d or 1y. [default: never]")
@click.option("--requests-per-minute", type=_count, help="More are answered with 429.")
@click.option("--tokens-per-minute", type=_count, help="Of prompts and answers; more are answered with 429.")
@_as_json
@talks_to_server
def create(target: Target, scopes: tuple[str, ...], models: tuple[str, ...], as_json: bool, **fields: Any) -> None:
    """Make a key; it is printed this once, and kept nowhere."""
    with _keys(target) as keys:
        made = keys.create_key(scopes=list(dict.fromkeys(scopes)), models=list(models) or None, **fields)
    if as_json:
        print_json(made)
        return
    note(f"Made the key {made['name']}. It is shown this once:")
    click.echo(made["key"])


@keys.command("list")
@_as_json
@talks_to_server
def list_keys(target: Target, as_json: bool) -> None:
    """List the keys, never the secrets themselves."""
    with _keys(target) as keys:
        found = keys.list_keys()
    if as_json:
        print_json(found)
        return
    header = ("Name", "Id", "Scopes", "Models", "Requests/min", "Tokens/min", "Expires", "Last used", "State")
    print_table(header, [_row(key, time.time()) for key in found])
    if not found:
        note("There are no keys: who reaches the server may use it. `xinference keys create` makes one.")


@keys.command()
@click.argument("name", metavar="NAME|ID")
@talks_to_server
def revoke(target: Target, name: str) -> None:
    """End a key at once. Requests go on needing one, also after the last."""
    with _keys(target) as keys:
        key = keys.revoke_key(name)
    note(f"Revoked {key['name']} ({key['id']}).")


@keys.command()
@click.option("--yes", is_flag=True, help="Don't ask.")
@talks_to_server
def off(target: Target, yes: bool) -> None:
    """Remove every key: a server on loopback needs none any more."""
    if not yes:
        click.confirm("Remove every key, and let all who reach the server use it?", abort=True, err=True)
    with _keys(target) as keys:
        count = keys.forget_keys()["removed"]
    note(f"Removed {count} {'key' if count == 1 else 'keys'}.")


@contextmanager
def _keys(target: Target) -> Iterator[Any]:
    """Who answers about keys: the server that was named, else this home's if it runs, else the store of this home."""
    with ExitStack() as stack:
        if target.settings.endpoint:
            yield stack.enter_context(target.connect())
            return
        from xinference.local_commands.keys import keys_of_home

        try:
            found: Any = stack.enter_context(keys_of_home(target.settings))
        except Problem as problem:
            if problem.code != "home_taken":
                raise
            found = stack.enter_context(_of_this_home(target).connect())
        yield found


def _of_this_home(target: Target) -> Target:
    """The server that holds this home, wherever it listens; the home's own key may do what a given one may not."""
    from xinference.client.local_key import local_endpoint

    endpoint = local_endpoint(target.settings)
    return replace(target, api_key=None, settings=replace(target.settings, endpoint=endpoint or ""))


def _row(key: Json, now: float) -> list[Any]:
    expired = key["expires"] is not None and key["expires"] <= now
    return [
        key["name"],
        key["id"],
        ", ".join(key["scopes"]),
        "all" if key["models"] is None else ", ".join(key["models"]),
        key["requests_per_minute"],
        key["tokens_per_minute"],
        _moment(key["expires"]),
        _moment(key["last_used"]),
        "revoked" if key["revoked"] is not None else "expired" if expired else "active",
    ]


def _moment(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
