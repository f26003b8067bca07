"""`xinference login`."""

from __future__ import annotations

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.output import note


@click.command()
@click.option("--username", required=True, prompt=True, prompt_required=False, help="Name of the key.")
@click.option("--password", required=True, prompt=True, prompt_required=False, hide_input=True, help="The key.")
@with_server_options
def login(target: Target, username: str, password: str) -> None:
    """Save an API key for a server, so that later commands use it.

    The user name is the name of the key, and the password is the key.
    """
    from xinference.cli.saved_login import save_token, token_file

    with target.connect() as client:
        if not client.auth().get("auth"):
            note(f"The server at {client.base_url} does not require a login.")
            return
        token = client.request_token(username, password)
    save_token(target.settings, token)
    note(f"Logged in to {target.settings.url}; saved in {token_file(target.settings)}.")
