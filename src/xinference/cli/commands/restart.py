"""`xinference restart`: restarts a model, or the server without its engines."""

from __future__ import annotations

import click

from xinference.cli.commands.lifecycle import restart_model
from xinference.cli.connection import Target, with_server_options
from xinference.cli.options.completion import complete_uid
from xinference.cli.options.json_option import json_option
from xinference.cli.output import note, print_json
from xinference.errors import bad_request


@click.command()
@click.argument("uid", required=False, shell_complete=complete_uid)
@json_option
@with_server_options
def restart(target: Target, uid: str | None, as_json: bool) -> None:
    """Restart the model UID; without UID, the server of this home.

    The server starts again in the background with the same settings. Its engines keep running, and the new server
    takes them over.
    """
    if uid is not None:
        restart_model(target, uid, as_json=as_json)
        return
    from xinference.client.local_server import owns_home
    from xinference.client.server_restart import restart_server

    if target.settings.endpoint and not owns_home(target.settings, target.settings.url):
        raise bad_request(
            f"{target.settings.url} is not the server of this home.",
            hint="Restart it on its own machine, or set XINFERENCE_HOME to its home.",
        )
    url = restart_server(target.settings, note)
    print_json({"url": url, "restarted": True}) if as_json else click.echo(url)
    note("Restarted the server.")
