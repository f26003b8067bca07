"""`xinference stop`, and `stop-cluster` of older versions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from xinference.cli.connection import Target, with_required_endpoint, with_server_options
from xinference.cli.output import note
from xinference.error_codes import Code
from xinference.errors import Problem

if TYPE_CHECKING:
    from xinference.client import Client

#: Maximum seconds for a server to stop its engines and itself.
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05


@click.command()
@with_server_options
def stop(target: Target) -> None:
    """Stop the server and all its models."""
    with target.connect() as client:
        try:
            running = _running(client)
        except Problem as problem:
            if problem.code != Code.NO_SERVER:
                raise
            note(f"No server runs at {client.base_url}.")
            return
        _stop(client, running)


@click.command("stop-cluster")
@click.option("--check", is_flag=True, help="Stop without confirmation.")
@with_required_endpoint
def stop_cluster(target: Target, check: bool) -> None:
    """Stop the server at --endpoint and all its models."""
    with target.connect() as client:
        running = _running(client)
        note(f"The server at {client.base_url} runs " + (f"{', '.join(running)}." if running else "no models."))
        if check or click.confirm("Do you want to stop it?", err=True):
            _stop(client, running)
        else:
            note("Nothing was stopped.")


def _running(client: Client) -> list[str]:
    return [str(instance["model_uid"]) for instance in client.list_instances()]


def _stop(client: Client, running: list[str]) -> None:
    client.abort_cluster()
    _wait_for_exit(client)
    note(f"Stopped the server at {client.base_url}" + (f" and {', '.join(running)}." if running else "."))


def _wait_for_exit(client: Client) -> None:
    """Wait until the port is free, so that a server can be started right after this command."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            client.health()
        except Problem as problem:
            if problem.code == Code.NO_SERVER:
                return
        time.sleep(POLL_SECONDS)
    raise Problem(Code.SERVER_LIVES, f"The server at {client.base_url} still answers after {STOP_SECONDS:g} s.")
