"""`xinference web`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.output import note
from xinference.errors import Problem

if TYPE_CHECKING:
    from xinference.client import Client


@click.command()
@click.option("--no-browser", is_flag=True, help="Print the address of the page, and open no browser.")
@with_server_options
def web(target: Target, no_browser: bool) -> None:
    """Open the web page of the server.

    The page launches models, chats with them, and shows logs, downloads and keys. A server is started if none runs.

    If the server requires keys, the page opens logged in with the key of this command. Its address then contains a
    login code, which is valid once and for one minute.
    """
    with target.connect(start=True) as client:
        address = f"{client.base_url}/ui/{_login(client)}"
    if no_browser:
        click.echo(address)
        return
    import webbrowser

    if webbrowser.open(address):
        note(f"Opened {address.partition('#')[0]} in the browser.")
    else:
        note("No browser could be opened. The page is at:")
        click.echo(address)


def _login(client: Client) -> str:
    """The part of the page's address with which it logs in; empty where it needs no key, or has none to log in with."""
    # Only on Linux does a server know its own user's browser.
    needs_login = bool(client.auth().get("auth")) or sys.platform != "linux"
    if not needs_login:
        return ""
    try:
        return f"#code={client.create_login_code()['code']}"
    except Problem as problem:
        if problem.status not in (401, 403, 404):
            raise
        return ""
