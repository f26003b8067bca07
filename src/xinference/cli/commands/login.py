"""`xinference login`."""

from __future__ import annotations

import click

from xinference.cli.connection import Target, talks_to_server
from xinference.cli.output import note


@click.command()
@click.option("--username", required=True, prompt=True, prompt_required=False, help="Name of the user.")
@click.option("--password", required=True, prompt=True, prompt_required=False, hide_input=True, help="Their password.")
@talks_to_server
def login(target: Target, username: str, password: str) -> None:
    """Log in; the commands that follow use this login."""
    from xinference.cli.saved_login import save_token, token_file

    with target.connect() as client:
        if not client.auth().get("auth"):
            note(f"The server at {client.base_url} asks nobody to log in.")
            return
        token = client.request_token(username, password)
    save_token(target.settings, token)
    note(f"Logged in at {target.settings.url}; kept in {token_file(target.settings)}.")
