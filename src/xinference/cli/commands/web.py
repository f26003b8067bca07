"""`xinference web`."""

from __future__ import annotations

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.output import note


@click.command()
@click.option("--no-browser", is_flag=True, help="Print the address of the page, and open no browser.")
@with_server_options
def web(target: Target, no_browser: bool) -> None:
    """Open the web page of the server.

    It shows and does what the other commands do: launch, chat, logs, downloads, keys. A server is started if none runs.
    """
    with target.connect(start=True) as client:
        client.auth()  # whether a server answers
        address = f"{client.base_url}/ui/"
    if no_browser:
        click.echo(address)
        return
    import webbrowser

    if webbrowser.open(address):
        note(f"Opened {address} in the browser.")
    else:
        note("No browser could be opened. The page is at:")
        click.echo(address)
