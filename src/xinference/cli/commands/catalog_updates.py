"""`xinference catalog`: updates of the catalog of models, on the server or without one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.given_file import as_text, read_named
from xinference.cli.options.json_option import json_option
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import note, print_json
from xinference.cli.table import print_table
from xinference.error_codes import Code
from xinference.errors import Problem

if TYPE_CHECKING:
    from xinference.client import Client
    from xinference.config import Settings

Json = dict[str, Any]
#: Maximum bytes of a file that is sent.
MAX_BYTES = 8 << 20
_FILE_HINT = "Give the JSON file of a catalog."
#: Number of names in a line about changed families.
NAMES_SHOWN = 20


@click.group()
def catalog() -> None:
    """Update the catalog of models without a new release."""


def _source_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--model-name", "-n", help="Take only this family."),
        click.option("--model-type", "-t", help="Take only the families of this type: LLM, embedding or rerank."),
        click.option("--sha256", help="SHA-256 hash of the catalog, or of the package's wheel. Required for a URL."),
        click.option("--from", "source", help="Source of the catalog: a FILE, an https: URL or PACKAGE[==VERSION]."),
    ):
        command = option(command)
    return command


@catalog.command()
@_source_options
@json_option
@with_server_options
def update(target: Target, as_json: bool, **options: str | None) -> None:
    """Check a catalog and use it.

    Without --from, the source is XINFERENCE_CATALOG_SOURCE. The whole catalog is checked before it is used. A running
    server then uses it at once; running models do not change.
    """
    change = _call(target, "update_catalog", _request(**options))
    if as_json:
        print_json(change)
        return
    if not change["updated"]:
        note(f"The catalog {change['version']} is in use already.")
        return
    _show(change)
    note(f"The catalog {change['version']} is in use; `xinference catalog rollback` returns to the previous one.")


@catalog.command("list")
@wide_option
@json_option
@with_server_options
def list_catalogs(target: Target, as_json: bool, wide: bool) -> None:
    """List the catalog in use and the stored ones."""
    described = _call(target, "list_catalogs")
    if as_json:
        print_json(described)
        return
    header = ("Version", "State", "Families", "Date", "Source", "sha256")
    rows = [
        (
            each["version"],
            each["state"],
            each.get("families"),
            time.strftime("%Y-%m-%d", time.localtime(each["created"])) if each.get("created") else None,
            each["source"],
            (each.get("sha256") or "")[: None if wide else 12] or None,
        )
        for each in described["catalogs"]
    ]
    print_table(header, rows, wide=wide)
    if described.get("problem"):
        note(f"The last update is not in use: {described['problem']['cause']}")


@catalog.command()
@_source_options
@json_option
@with_server_options
def diff(target: Target, as_json: bool, **options: str | None) -> None:
    """Show what an update would change.

    Without --from, show what the last update has changed.
    """
    change = _call(target, "compare_catalog", _request(**options))
    if as_json:
        print_json(change)
    else:
        _show(change)


@catalog.command()
@json_option
@with_server_options
def rollback(target: Target, as_json: bool) -> None:
    """Return to the catalog that was in use before the last update."""
    change = _call(target, "rollback_catalog")
    if as_json:
        print_json(change)
        return
    _show(change)
    note(f"The catalog {change['version']} is in use again.")


def _request(
    source: str | None, sha256: str | None, model_type: str | None, model_name: str | None
) -> dict[str, str | None]:
    """The arguments of a request; a source that is a file of this machine is read here."""
    chosen = {"sha256": sha256, "model_type": model_type, "model_name": model_name}
    if source is None or "://" in source or not _is_file(source):
        return {"source": source, "catalog": None, **chosen}
    text = read_named(Path(source), hint=_FILE_HINT, max_bytes=MAX_BYTES)
    if sha256 is not None and hashlib.sha256(text).hexdigest() != sha256.strip().lower():
        raise Problem(
            Code.BAD_CATALOG,
            f"The sha256 of {source} is {hashlib.sha256(text).hexdigest()}, and not {sha256}.",
            hint="Nothing is changed. Fetch the file again.",
        )
    return {"source": Path(source).name, "catalog": as_text(text, source, hint=_FILE_HINT), **chosen}


def _is_file(source: str) -> bool:
    """Whether a source names a file; a package has neither a slash nor the ending of a JSON file."""
    return Path(source).is_file() or "/" in source or source.endswith(".json")


def _call(target: Target, method: str, arguments: dict[str, str | None] | None = None) -> Json:
    """Call a method of the client; without a server, the same function of this home."""
    arguments = arguments or {}

    def of_server(client: Client) -> Json:
        answer: Json = getattr(client, method)(**arguments)
        return answer

    def without_server(settings: Settings) -> Json:
        from xinference.local_commands import catalog as local

        answer: Json = getattr(local, method)(settings, **arguments)
        return answer

    return target.ask(of_server, without_server)


def _show(change: Json) -> None:
    for word in ("added", "removed"):
        if names := change[word]:
            further = len(names) - NAMES_SHOWN
            shown = ", ".join(names[:NAMES_SHOWN]) + (f" and {further} more" if further > 0 else "")
            click.echo(f"{word}: {shown}")
    for name, fields in change["changed"].items():
        click.echo(f"changed: {name} ({', '.join(fields)})")
    if not any(change[word] for word in ("added", "removed", "changed")):
        click.echo("No family differs.")
