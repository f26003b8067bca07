"""`xinference serve`, `stop`, and `xinference-local`."""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING

import click

from xinference.cli.connection import Target, talks_to_server
from xinference.cli.output import note
from xinference.errors import Problem

if TYPE_CHECKING:
    from xinference.client import Client

#: How long a server may take to stop its engines and itself.
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05

_LEVELS = click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False)


@click.command()
@click.option("-H", "--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("-p", "--port", type=click.IntRange(0, 65535), help="Port to listen on. [default: 9997]")
@click.option("--log-level", type=_LEVELS, help="The server's own log level. [default: INFO]")
@click.option("--allow-unauthenticated", is_flag=True, help="Listen beyond this machine without any key.")
@click.option("--home", type=click.Path(file_okay=False), help="Folder for everything that is kept.")
def serve(
    host: str | None, port: int | None, log_level: str | None, allow_unauthenticated: bool, home: str | None
) -> None:
    """Run the server in this terminal."""
    _run(host, port, log_level, allow_unauthenticated, home)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--log-level", type=_LEVELS, help="The server's own log level. [default: INFO]")
@click.option("-H", "--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("-p", "--port", type=click.IntRange(0, 65535), help="Port to listen on. [default: 9997]")
def local(log_level: str | None, host: str | None, port: int | None) -> None:
    """Run the server in this terminal, as `xinference serve` does."""
    _run(host, port, log_level)


def _run(
    host: str | None,
    port: int | None,
    log_level: str | None,
    allow_unauthenticated: bool = False,
    home: str | None = None,
) -> None:
    # By name: the rest of the command line must not depend on the server, here the server is what is asked for.
    run = import_module("xinference.server").run
    allow = allow_unauthenticated or None  # a flag that is not given leaves the word to the environment
    raise SystemExit(run(host=host, port=port, log_level=log_level, allow_unauthenticated=allow, home=home))


@click.command()
@talks_to_server
def stop(target: Target) -> None:
    """Stop the server and all its models."""
    with target.connect() as client:
        try:
            running = [instance["model_uid"] for instance in client.list_instances()]
        except Problem as problem:
            if problem.code != "no_server":
                raise
            note(f"No server runs at {client.base_url}.")
            return
        client.abort_cluster()
        _wait_until_gone(client)
    note(f"Stopped the server at {target.settings.url}" + (f" and {', '.join(running)}." if running else "."))


def _wait_until_gone(client: Client) -> None:
    """Whoever starts a server right after us must find the port free."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            client.health()
        except Problem as problem:
            if problem.code == "no_server":
                return
        time.sleep(POLL_SECONDS)
    raise Problem("server_lives", 504, f"The server at {client.base_url} still answers {STOP_SECONDS:g} s after.")
