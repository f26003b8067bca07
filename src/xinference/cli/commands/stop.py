"""`xinference stop`, and `stop-cluster` of older versions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from xinference.cli.connection import Target, with_required_endpoint, with_server_options
from xinference.cli.options.json_option import json_option
from xinference.cli.output import note, print_json
from xinference.error_codes import Code
from xinference.errors import Problem

if TYPE_CHECKING:
    from xinference.client import Client
    from xinference.config import Settings

#: Maximum seconds for a server to stop, besides those that its settings give open answers and engines.
STOP_SECONDS = 60.0
#: Seconds after which the wait is reported, and after which it is reported again.
REPORT_SECONDS = 2.0
REPORT_AGAIN_SECONDS = 10.0
POLL_SECONDS = 0.05


@click.command()
@click.argument("name", metavar="", required=False)
@json_option
@with_server_options
def stop(target: Target, name: str | None, as_json: bool) -> None:
    """Stop the server and all its models."""
    if name is not None:  # `ollama stop NAME` ends one model
        raise click.UsageError(f"`xinference stop` stops the server; `xinference terminate {name}` ends that model.")
    with target.connect() as client:
        try:
            running = _running(client)
        except Problem as problem:
            if problem.code != Code.NO_SERVER:
                raise
            note(f"No server runs at {client.base_url}.")
            if not target.settings.endpoint:
                _end_left_engines(target.settings)
            running, stopped = [], False
        else:
            _stop(client, target.settings, running)
            stopped = True
        if as_json:
            print_json({"url": client.base_url, "stopped": stopped, "models": running})


@click.command("stop-cluster")
@click.option("-y", "--yes", "--check", "check", is_flag=True, help="Stop without confirmation.")
@with_required_endpoint
def stop_cluster(target: Target, check: bool) -> None:
    """Stop the server at --endpoint and all its models."""
    with target.connect() as client:
        running = _running(client)
        note(f"The server at {client.base_url} runs " + (f"{', '.join(running)}." if running else "no models."))
        if check or click.confirm("Do you want to stop it?", err=True):
            _stop(client, target.settings, running)
        else:
            note("Nothing was stopped.")


def _end_left_engines(settings: Settings) -> None:
    from xinference.client.local_server import end_left_engines

    if ended := end_left_engines(settings):
        note(f"Ended the engines that the last server had left running: {ended}.")


def _running(client: Client) -> list[str]:
    return [str(instance["model_uid"]) for instance in client.list_instances()]


def _stop(client: Client, settings: Settings, running: list[str]) -> None:
    from xinference.client.local_server import owns_home

    owns = owns_home(settings, client.base_url)  # before the stop: a server that ends withdraws its address
    client.abort_cluster()
    _wait_for_exit(client, settings, owns)
    note(f"Stopped the server at {client.base_url}" + (f" and {', '.join(running)}." if running else "."))


def _wait_for_exit(client: Client, settings: Settings, owns: bool) -> None:
    """Wait until the port is free and, if it is the server of this home, until its process has ended.

    The port is closed before the last answers are sent and the engines have ended. A server can be started right after
    this command.
    """
    from xinference.process.home import is_free

    began = time.monotonic()
    deadline = began + STOP_SECONDS + settings.drain_seconds + settings.stop_seconds
    report = began + REPORT_SECONDS
    while _answers(client) or (owns and not is_free(settings)):
        now = time.monotonic()
        if now > deadline:
            raise Problem(
                Code.SERVER_LIVES,
                f"The server at {client.base_url} still runs after {deadline - began:g} s.",
                hint="Its log, logs/server.log in its home, has the reason.",
            )
        if now > report:
            note(f"Waiting for the server to end its answers and models ({now - began:.0f} s) …")
            report = now + REPORT_AGAIN_SECONDS
        time.sleep(POLL_SECONDS)


def _answers(client: Client) -> bool:
    try:
        client.health()
    except Problem as problem:
        return problem.code != Code.NO_SERVER
    return True
