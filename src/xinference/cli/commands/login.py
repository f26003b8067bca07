"""`xinference login`."""

from __future__ import annotations

import sys

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.output import note


@click.command()
@click.option("--username", help="Name of the key. [default: asked for]")
@click.option("--password", help="The key. [default: asked for]")
@with_server_options
def login(target: Target, username: str | None, password: str | None) -> None:
    """Save an API key for a server, so that later commands use it.

    The user name is the name of the key, and the password is the key.
    """
    from xinference.cli.saved_login import save_token, token_file

    with target.connect() as client:
        if not client.auth().get("auth"):
            note(f"The server at {client.base_url} does not require a login.")
            return
        name = username or _ask("username")
        token = client.request_token(name, password or _ask("password", hide=True))
    save_token(target.settings, token)
    note(f"Logged in to {target.settings.url}; saved in {token_file(target.settings)}.")


def _ask(option: str, *, hide: bool = False) -> str:
    """What the user types at the terminal; without one, the next line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt(option.capitalize(), hide_input=hide, err=True))
    if line := sys.stdin.readline().strip():
        return line
    raise click.UsageError(f"Missing option '--{option}', and standard input has no line for it.")
