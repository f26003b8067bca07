"""The server: gateway, management API and controller in one process.

python -m xinference.server --host 127.0.0.1 --port 9997
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop

from xinference import __version__
from xinference.api.app import make_app
from xinference.config import LOOPBACK_HOSTS, Settings
from xinference.control.controller import Controller
from xinference.control.deployment import Ending
from xinference.errors import Problem
from xinference.gateway.app import Gateway
from xinference.gateway.asgi import ASGIApp
from xinference.process.link import private_run_dir
from xinference.store.database import Store

log = logging.getLogger("xinference")
#: Exit status when the port or the home is taken by another server.
EXIT_TAKEN = 98
#: Ports tried after a busy default one.
PORTS_TRIED = 100
#: How long a stopping server waits for answers in flight, in seconds.
LAST_ANSWERS_SECONDS = 5


class Server(uvicorn.Server):
    """uvicorn's server, which remembers what ended it."""

    ended_by: int = signal.SIGTERM

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own: that raises the signal again at the end, before engines are ended or left.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        self.ended_by = sig

    def stop(self) -> None:
        """End the server and its engines once the answers in flight are sent."""
        self.ended_by = signal.SIGINT
        self.should_exit = True


def run(
    *,
    host: str | None = None,
    port: int | None = None,
    log_level: str | None = None,
    allow_unauthenticated: bool | None = None,
    home: str | None = None,
) -> int:
    """Serve until SIGINT, SIGTERM or a stop by the API; the answer is the exit status.

    SIGTERM leaves the engines to the next server for their grace period; SIGINT and a stop end them.

    Raises:
        Problem: the settings are wrong, or the port or the home is taken.
    """
    settings = Settings.from_env(
        host=host, port=port, log_level=log_level, allow_unauthenticated=allow_unauthenticated or None, home=home
    )
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    _check_exposure(settings)
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    port_is_given = port is not None or "XINFERENCE_PORT" in os.environ
    with _own_home(settings), listen(settings, port_is_given) as listener:
        uvloop.run(_serve(settings, listener))
    return 0


async def _serve(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    settings = replace(settings, port=port)  # the one that was free
    store = Store(settings.home / "xinference.db")
    controller = Controller(settings, store)
    server: Server
    management = make_app(controller, settings, lambda: server.stop())
    gateway = Gateway(controller, settings, management)
    server = http_server(gateway)
    _write_endpoint(settings, host, port)
    await controller.start()
    log.info("xinference %s serves http://%s:%d (home %s)", __version__, host, port, settings.home)
    try:
        await server.serve(sockets=[listener])
    finally:
        how: Ending = "stop" if server.ended_by == signal.SIGINT else "detach"
        await controller.close(how)
        await gateway.close()
        store.close()
        (settings.home / "server.json").unlink(missing_ok=True)
        log.info("ended (%s)", "engines ended" if how == "stop" else "engines left for the next server")


def http_server(app: ASGIApp) -> Server:
    """The HTTP server in front of `app`: the same one wherever the gateway is served, benchmarks included."""
    return Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
        )
    )


def _check_exposure(settings: Settings) -> None:
    if settings.host not in LOOPBACK_HOSTS and not settings.allow_unauthenticated:
        raise Problem(
            "unprotected",
            400,
            f"Listening on {settings.host} would let anybody who reaches it launch models, and there are no keys.",
            hint="Keep --host 127.0.0.1, or pass --allow-unauthenticated if the network is yours alone.",
        )


@contextlib.contextmanager
def _own_home(settings: Settings) -> Iterator[None]:
    """Hold the home's lock: two servers over the same rows would both start every engine."""
    with (private_run_dir(settings) / "server.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(
                "home_taken",
                EXIT_TAKEN,
                f"Another server uses {settings.home}{_other_server(settings.home)}.",
                hint="Use that one, or set XINFERENCE_HOME to another folder.",
            ) from None
        yield


def _other_server(home: Path) -> str:
    try:
        other = json.loads((home / "server.json").read_text())
        return f" (pid {other['pid']}, {other['endpoint']})"
    except (OSError, ValueError, KeyError):
        return ""


@contextlib.contextmanager
def listen(settings: Settings, port_is_given: bool) -> Iterator[socket.socket]:
    """A listening socket; a busy default port is replaced by the next free one, a given one is a Problem."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    last = settings.port if port_is_given or settings.port == 0 else min(settings.port + PORTS_TRIED, 65535)
    for port in range(settings.port, last + 1):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, port))
            listener.listen(2048)
        except OSError as error:
            listener.close()
            if port == last:
                raise Problem(
                    "port_taken",
                    EXIT_TAKEN,
                    f"Can't listen on {settings.host}:{port}: {error.strerror}.",
                    hint="Choose another --port, or end the program that holds this one.",
                ) from None
            continue
        with listener:
            yield listener
        return


def _write_endpoint(settings: Settings, host: str, port: int) -> None:
    named = f"[{host}]" if ":" in host else host
    text = json.dumps({"pid": os.getpid(), "endpoint": f"http://{named}:{port}"})
    file = settings.home / "server.json"
    draft = file.with_suffix(".tmp")
    draft.write_text(text)
    draft.replace(file)


def main() -> int:
    """Entry point of ``python -m xinference.server``."""
    parser = argparse.ArgumentParser(prog="xinference.server")
    parser.add_argument("-H", "--host")
    parser.add_argument("-p", "--port", type=int)
    parser.add_argument("--log-level")
    parser.add_argument("--allow-unauthenticated", action="store_true")
    arguments = parser.parse_args()
    try:
        return run(**vars(arguments))
    except Problem as problem:
        print(f"Error: {problem.cause}\nHint: {problem.hint}", file=sys.stderr)  # noqa: T201 -- before any log
        return EXIT_TAKEN if problem.status == EXIT_TAKEN else 1


if __name__ == "__main__":
    sys.exit(main())
