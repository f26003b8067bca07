"""`xinference env`: the environments of the engines, without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xinference.cli.options.json_option import json_option
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import note, print_json, size
from xinference.cli.table import print_table

if TYPE_CHECKING:
    from xinference.local_commands.environments import EnvironmentCommands

Json = dict[str, Any]
_engine = click.argument("name", metavar="ENGINE[==VERSION]")
_hardware = click.option(
    "--hardware",
    type=click.Choice(["cpu", "cuda"]),
    help="Hardware that the environment is for. [default: cuda if this machine supports it]",
)


@click.group()
def env() -> None:
    """Manage the Python environments of the engines.

    There is one environment for each engine, version and kind of hardware. The first launch on an engine installs its
    environment. Engines that are part of the installation need none.
    """


@env.command("list")
@wide_option
@json_option
def list_environments(as_json: bool, wide: bool) -> None:
    """List the environments, installed or not."""
    entries = _commands().entries()
    if as_json:
        print_json(entries)
    else:
        header = ("Engine", "Version", "Hardware", "Installed", "Size", "Path")
        print_table(header, map(_row, entries), wide=wide)


@env.command()
@click.argument("name", metavar="[ENGINE[==VERSION]]", required=False)
@_hardware
@click.option(
    "--from",
    "bundle",
    type=click.Path(path_type=Path),
    help="Install from a file that `env pack` wrote, without a network.",
)
@json_option
def install(name: str | None, hardware: str | None, bundle: Path | None, as_json: bool) -> None:
    """Install an environment, and print its path."""
    if (name is None) == (bundle is None):
        raise click.UsageError("Give the name of an engine, or a bundle with --from.")
    commands = _commands()
    with _progress_display() as progress:
        if bundle is not None:
            entry = commands.install_from(bundle, progress)
        else:
            assert name is not None
            full_name, count = commands.size(name, hardware)
            note(f"{full_name} requires {size(count)} of disk space.")
            entry = commands.install(name, hardware, progress)
    _show(entry, as_json)


@env.command()
@_engine
@_hardware
@json_option
def remove(name: str, hardware: str | None, as_json: bool) -> None:
    """Delete an environment.

    To delete an outdated environment, which another release has installed, give the name of its folder from
    `xinference env list`.
    """
    entry = _commands().remove(name, hardware)
    if as_json:
        print_json(entry)
    else:
        note(f"Removed {entry['name']} ({size(entry['size_bytes'])}).")


@env.command()
@_engine
@_hardware
@json_option
def verify(name: str, hardware: str | None, as_json: bool) -> None:
    """Check that an engine can be imported in its environment."""
    entry = _commands().verify(name, hardware)
    note(f"{entry['name']} can be imported.")
    _show(entry, as_json)


@env.command()
@_engine
@_hardware
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write. [default: NAME.tar in this folder]",
)
def pack(name: str, hardware: str | None, out: Path | None) -> None:
    """Pack an environment into one file.

    `xinference env install --from FILE` installs it on a machine without a network.
    """
    with _progress_display() as progress:
        bundle = _commands().pack(name, hardware, out, progress)
    click.echo(str(bundle))


def _commands() -> EnvironmentCommands:
    from xinference.local_commands.environments import EnvironmentCommands

    return EnvironmentCommands()


@contextmanager
def _progress_display() -> Iterator[Callable[[int, int | None, str], None]]:
    from xinference.cli.progress import new_display

    display = new_display()
    try:
        yield lambda done, total, name: display.progress(name, done, total)
    finally:
        display.clear()


def _show(entry: Json, as_json: bool) -> None:
    if as_json:
        print_json(entry)
    else:
        click.echo(entry["path"])


def _row(entry: Json) -> tuple[Any, ...]:
    installed = "outdated" if entry["outdated"] else "yes" if entry["installed"] else "no"
    return entry["engine"], entry["version"], entry["hardware"], installed, size(entry["size_bytes"]), entry["path"]
