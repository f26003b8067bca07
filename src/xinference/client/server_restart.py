"""Restarts the server of this home with its own command and environment; its engines keep running."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import psutil

from xinference.client.local_key import local_endpoint
from xinference.client.local_server import ensure_server
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem, system_reason
from xinference.files.small_file import read_small_object
from xinference.process.home import is_free

#: Variable of a server that a service manager runs: the command that restarts it there. `service install` sets it.
RESTART_VARIABLE = "XINFERENCE_SERVICE_RESTART"
#: Maximum seconds until the server has ended, in addition to the time of its open answers.
END_SECONDS = 30.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class RunningServer:
    """The server process of a home, with everything that starts it again."""

    process: psutil.Process
    url: str
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: Path


def find_server(settings: Settings) -> RunningServer:
    """The running server of this home.

    Raises:
        Problem: no server runs in this home, or it belongs to another user.
    """
    url = local_endpoint(settings)
    if url is None or is_free(settings):
        raise Problem(
            Code.NO_SERVER,
            f"No server runs in {settings.home}.",
            hint="Start one with `xinference serve --background`.",
        )
    try:
        process = psutil.Process(int(read_small_object(settings.server_file)["pid"]))
        with process.oneshot():
            command, environment = tuple(process.cmdline()), process.environ()
            return RunningServer(process, url, command, environment, Path(process.cwd()))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, psutil.Error) as error:
        raise Problem(
            Code.NO_SERVER,
            f"The process of the server in {settings.home} can't be read: {system_reason(error)}.",
            hint="Restart it as the user who started it.",
        ) from None


def restart_server(settings: Settings, report: Callable[[str], None]) -> str:
    """Stop the server of this home and start it again in the background; returns its URL.

    The server gets SIGTERM: it sends its open answers and leaves its engines running, and the new one adopts them.

    Raises:
        Problem: no server runs, a service manager runs it, it does not end, or the new one does not start.
    """
    server = find_server(settings)
    if command := server.environment.get(RESTART_VARIABLE):
        raise Problem(Code.MANAGED_SERVER, "A service manager runs this server.", hint=f"Restart it with `{command}`.")
    report(f"Stopping the server at {server.url}; its engines keep running …")
    server.process.terminate()
    _wait_for_end(server, settings)
    port = httpx2.URL(server.url).port
    environment = server.environment | ({"XINFERENCE_PORT": str(port)} if port else {})
    folder = server.folder if server.folder.is_dir() else settings.home
    ensure_server(
        replace(settings, endpoint=server.url),
        lambda: None,
        command=server.command,
        environment=environment,
        folder=folder,
    )
    return server.url


def _wait_for_end(server: RunningServer, settings: Settings) -> None:
    deadline = time.monotonic() + END_SECONDS + settings.drain_seconds
    while server.process.is_running() and not is_free(settings):
        if time.monotonic() > deadline:
            raise Problem(
                Code.SERVER_LIVES,
                f"The server at {server.url} still runs {END_SECONDS + settings.drain_seconds:g} s after its stop.",
                hint="Its log, logs/server.log in its home, has the reason.",
            )
        time.sleep(POLL_SECONDS)
