"""The server that a command connects to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xinference.cli.output import note
from xinference.cli.saved_login import saved_token
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem

if TYPE_CHECKING:
    from xinference.client import Client

T = TypeVar("T")

#: The option with the server's URL, as hints name it.
URL_OPTION = "--endpoint"
#: States in which a server that has just started does not start a model again: on demand and unloaded, or not restored.
_NOT_STARTED = ("UNLOADED", "ERROR", "TERMINATING", "TERMINATED")


@dataclass(frozen=True)
class Target:
    """The endpoint of a command, and its key."""

    settings: Settings
    api_key: str | None
    """From the command line; None: the owner's key of this home, or that of the last login."""

    def connect(self, *, start: bool = False) -> Client:
        """A client; with `start`, a server is started in the background if none answers at the default endpoint."""
        from xinference.client import Client
        from xinference.client.local_key import owner_key

        started = False
        if start and not self.settings.endpoint:  # a named endpoint may be another machine
            from xinference.client.local_server import ensure_server

            started = ensure_server(self.settings, lambda: note(f"Starting a server at {self.settings.url} …"))
        key = self.api_key or owner_key(self.settings) or saved_token(self.settings)
        # No retries: a user at a terminal repeats the command. The first request shows whether a server answers.
        client = Client(self.settings.url, key, check=False, retries=0, url_name=URL_OPTION)
        if started:
            note_restored(client)
        return client

    def ask(self, of_server: Callable[[Client], T], without_server: Callable[[Settings], T]) -> T:
        """The answer of the server; where no server runs and none is named, that of `without_server`."""
        with self.connect() as client:
            try:
                return of_server(client)
            except Problem as problem:
                if problem.code != Code.NO_SERVER or self.settings.endpoint:
                    raise
        return without_server(self.settings)

    @property
    def answers(self) -> bool:
        """Whether there is a server to ask: one that answers, or one that the command names."""
        from xinference.client.local_server import server_answers

        return bool(self.settings.endpoint) or server_answers(self.settings)


def note_restored(client: Client) -> None:
    """Name the models that a new server restarts; print nothing if it does not list them."""
    try:
        instances = client.list_instances()
    except Problem:
        return
    uids = [str(instance["model_uid"]) for instance in instances if instance.get("status") not in _NOT_STARTED]
    if uids:
        note(f"The server restarts the models of its last run: {', '.join(uids)}.")


worker_ip_option = click.option("-w", "--worker-ip", help="No effect: this command always applies to the server.")
_ENDPOINT = "URL of the server. [env: XINFERENCE_ENDPOINT; default: the local server]"
_API_KEY = "API key. [env: XINFERENCE_API_KEY; default: the key of the last `xinference login`]"


def with_server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --endpoint and --api-key, and pass a `Target` to the command as `target`."""
    return click.option("-e", "--endpoint", help=_ENDPOINT)(_with_target(command))


def with_required_endpoint(command: Callable[..., None]) -> Callable[..., None]:
    """Add these options with a required --endpoint, for commands that must not reach the wrong server."""
    return click.option("-e", "--endpoint", required=True, help="URL of the server.")(_with_target(command))


def _with_target(command: Callable[..., None]) -> Callable[..., None]:
    @click.option("-ak", "--api-key", envvar="XINFERENCE_API_KEY", help=_API_KEY)
    @wraps(command)
    def with_target(*, endpoint: str | None, api_key: str | None, **arguments: Any) -> None:
        settings = Settings.from_env(endpoint=endpoint or None)
        command(target=Target(settings, api_key or None), **arguments)

    return with_target
