"""`xinference service`: the server as a service of systemd or launchd."""

from __future__ import annotations

import os
from typing import Any

import click

from xinference.cli.options.json_option import json_option
from xinference.cli.output import note, print_json

_system = click.option("--system", "is_system", is_flag=True, help="Use a system service, not a user service.")


@click.group()
def service() -> None:
    """Start the server at boot: write or remove a systemd unit or a launchd plist.

    `install` only writes the file, and prints the commands that start the service.
    """


def _service(is_system: bool, user: str | None = None) -> Any:
    from xinference.config import Settings
    from xinference.local_commands.service import service_of

    return service_of(Settings.from_env(), is_system=is_system, user=user, env=os.environ)


@service.command()
@click.option("--user", metavar="NAME", help="User of the service, with --system. [default: the current user]")
@click.option("--dry-run", is_flag=True, help="Print the file, and write nothing.")
@_system
def install(is_system: bool, user: str | None, dry_run: bool) -> None:
    """Write the file of the service.

    The service gets the XINFERENCE_… variables of this shell.
    """
    if user is not None and not is_system:
        raise click.UsageError("--user needs --system: a user service always runs as the current user.")
    made = _service(is_system, user)
    if dry_run:
        note(f"# {made.path}")
        click.echo(made.text.decode(), nl=False)
    else:
        from xinference.local_commands.service import install as write

        write(made)
        note(f"Wrote {made.path}.")
    note("These commands start the service, now and at each boot:")
    for line in made.start:
        note(f"  {line}")


@service.command()
@_system
def uninstall(is_system: bool) -> None:
    """Remove the file of the service."""
    from xinference.local_commands.service import uninstall as remove

    made = _service(is_system)
    if not made.path.exists():
        note(f"There is no {made.path}.")
        return
    remove(made)
    note(f"Removed {made.path}. If the service runs, end it:")
    for line in made.end:
        note(f"  {line}")


@service.command()
@json_option
@_system
def status(is_system: bool, as_json: bool) -> None:
    """Show whether the service is installed and a server runs."""
    from xinference.client.local_key import local_endpoint
    from xinference.config import Settings
    from xinference.process.home import is_free

    made, settings = _service(is_system), Settings.from_env()
    is_installed = made.path.exists()
    is_current = is_installed and made.path.read_bytes() == made.text
    url = None if is_free(settings) else local_endpoint(settings)
    if as_json:
        print_json({"path": str(made.path), "installed": is_installed, "current": is_current, "url": url})
        return
    state = "installed" if is_current else "installed with other settings" if is_installed else "not installed"
    click.echo(f"{made.path}: {state}")
    click.echo(f"server: {url or 'does not run'}")
    if is_installed:
        note(f"`{made.status}` shows the state of the service.")
