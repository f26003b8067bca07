"""Starts a server in the background if none answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from xinference.client.client import Client
from xinference.client.local_key import local_endpoint, place
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import EXIT_IN_USE, Problem
from xinference.files.small_file import read_small_object
from xinference.hosts import host_in_url
from xinference.process.engine_stop import KEEPER_SECONDS
from xinference.process.home import is_free, other_server_problem, own_home
from xinference.process.leftovers import stop_keepers

START_SECONDS = 30.0
#: Maximum time to wait for another server that was started at the same moment and uses the port.
OTHER_START_SECONDS = 10.0
#: Maximum time in which a server that runs already answers. One that starts models answers within a second.
FIRST_ANSWER_SECONDS = 15.0
POLL_SECONDS = 0.03
TAIL_LINES = 40
#: With less free space than this, a server can't make its store.
FULL_DISK_BYTES = 256 * 1024


def ensure_server(
    settings: Settings,
    announce: Callable[[], None],
    *,
    command: Sequence[str] = (),
    seconds: float = START_SECONDS,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> bool:
    """Start a server if none answers at ``settings.url``; returns whether it was started.

    Args:
        announce: called once, before a server is started.
        command: a command to run instead of `xinference.server`.
        seconds: maximum time until the server answers.
        environment: its environment variables; None: those of this process.
        folder: its working directory; None: the home.

    Raises:
        Problem: another program listens at this address; a worker or a server at another address uses the home; or
            the server did not start, with its last lines.
    """
    if server_answers(settings):
        return False
    with Client(settings.url, check=False, retries=0) as client:
        _check_no_other_server(settings)
        _check_no_worker(settings)
        announce()
        log = _open_log(settings)
        start = log.stat().st_size

        def spawn() -> subprocess.Popen[bytes]:
            variables = os.environ if environment is None else environment
            return _spawn(settings, log, command or server_command(settings), variables, folder or settings.home)

        _wait(client, settings, spawn, lambda: _tail(log, start), seconds)
    return True


def _check_no_other_server(settings: Settings) -> None:
    """Start no server in a home whose server answers at another address: it would end at once.

    Raises:
        Problem: 409 ``home_taken``, with that address.
    """
    endpoint = local_endpoint(settings)
    if endpoint is None or place(endpoint) == place(settings.url) or is_free(settings) or not _runs(endpoint):
        return
    raise other_server_problem(settings).replace(
        hint=f"Use that server with --endpoint {endpoint}, or set XINFERENCE_HOME to another folder for a second one."
    )


def _check_no_worker(settings: Settings) -> None:
    """Start no server in the home of a worker of a cluster that runs: its models are those of the supervisor.

    Raises:
        Problem: 503 ``no_server``, with the host of the supervisor.
    """
    if is_free(settings) or local_endpoint(settings) is not None:
        return
    try:
        membership = read_small_object(settings.home / "cluster" / "membership.json")
    except (OSError, ValueError):  # no worker has joined from this home
        return
    supervisor = host_in_url(str(membership.get("host") or "SUPERVISOR"))
    raise Problem(
        Code.NO_SERVER,
        f"A worker of a cluster runs in {settings.home}, so no server is started there.",
        hint=f"Give the URL of the supervisor with --endpoint, such as http://{supervisor}:9997; or set "
        "XINFERENCE_HOME to another folder for a server of its own.",
    )


def server_answers(settings: Settings) -> bool:
    """Whether a server answers at ``settings.url``.

    Raises:
        Problem: another program listens there, or what listens there does not answer.
    """
    with Client(settings.url, check=False, retries=0, timeout=FIRST_ANSWER_SECONDS) as client:
        try:
            return _answers(client)
        except Problem as problem:
            if problem.code == Code.NOT_OUR_SERVER:
                hint = "End it, or use another port: --port of `xinference serve`, or XINFERENCE_PORT."
                raise problem.replace(hint=hint) from None
            if problem.code != Code.SERVER_TIMEOUT:
                raise
            raise problem.replace(
                cause=f"A program listens at {settings.url}, but it did not answer within {FIRST_ANSWER_SECONDS:g} s.",
                hint="If it is a server, retry later, or end it. If not, use another port: --port or XINFERENCE_PORT.",
            ) from None


def owns_home(settings: Settings, url: str) -> bool:
    """Whether the server at `url` is the one that has announced itself in this home."""
    endpoint = local_endpoint(settings)
    return endpoint is not None and place(endpoint) == place(url)


def end_left_engines(settings: Settings) -> int:
    """End the engines that run on for the next server of this home; returns their number.

    A server that ends by SIGTERM, or is killed, leaves them for `grace_seconds`. Nothing is ended if a server or a
    worker uses the home.
    """
    if not settings.home.is_dir():
        return 0
    try:
        with own_home(settings):
            return stop_keepers(settings.run_dir, settings.stop_seconds + KEEPER_SECONDS)
    except Problem:
        return 0


def server_command(settings: Settings) -> list[str]:
    """The command that runs a server with these settings."""
    return [sys.executable, "-m", "xinference.server", "--host", settings.host, "--port", str(settings.port)]


def _answers(client: Client) -> bool:
    try:
        client.health()
    except Problem as problem:
        if problem.code in (Code.NO_SERVER, Code.SERVER_GONE):  # SERVER_GONE: the server is being stopped
            return False
        raise
    return True


def _open_log(settings: Settings) -> Path:
    """The server's log file, in folders that only the user can read; a long log is rotated first.

    On a full disk the server starts without a log.
    """
    settings.make_home()
    log = settings.log_dir / "server.log"
    try:
        settings.log_dir.mkdir(mode=0o700, exist_ok=True)
        log.touch(mode=0o600)
        if log.stat().st_size > settings.log_bytes:
            log.replace(log.with_suffix(".log.1"))
            log.touch(mode=0o600)
    except OSError:
        return Path(os.devnull)
    return log


def _spawn(
    settings: Settings, log: Path, command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    """Start `command` as a process that outlives this one and its terminal."""
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,  # not the current folder, which may be deleted or unmounted later
            env={**environment, "XINFERENCE_HOME": str(settings.home)},
        )


def _wait(
    client: Client,
    settings: Settings,
    spawn: Callable[[], subprocess.Popen[bytes]],
    tail: Callable[[], list[str]],
    seconds: float,
) -> None:
    """Start a server and wait until it answers, or another one.

    If the home or the port is in use, there is a rival: it was started at the same time and will answer, or it is
    stopping. Once it has left the home, a server is started a second time.
    """
    child, is_first, in_use = spawn(), True, False
    deadline = time.monotonic() + seconds
    while not _answers(client):
        status = child.poll()
        if status is not None and status != EXIT_IN_USE:
            raise _end_problem(settings, status, tail())
        if status == EXIT_IN_USE and not in_use:
            in_use, deadline = True, time.monotonic() + _other_start_seconds(settings)
        if in_use and is_first and is_free(settings):
            child, is_first, in_use = spawn(), False, False
            deadline = time.monotonic() + seconds
        if time.monotonic() > deadline:
            child.terminate()
            raise _timeout_problem(client, in_use, tail(), seconds)
        time.sleep(POLL_SECONDS)


def _end_problem(settings: Settings, status: int, tail: list[str]) -> Problem:
    """The problem of a server that ended before it answered; without lines in its log, with a way to see the reason."""
    from xinference.files.disk_space import free_bytes

    full = f" The disk of {settings.home} is full." if free_bytes(settings.home) < FULL_DISK_BYTES else ""
    hint = None if tail else "Its log has no line. `xinference serve` shows the reason in this terminal."
    if full:
        hint = "Free disk space, or set XINFERENCE_HOME to a folder on another disk."
    cause = f"The server ended with exit status {status}.{full}"
    return Problem(Code.SERVER_FAILED, cause, stage="start", hint=hint, log_tail=tail)


def _other_start_seconds(settings: Settings) -> float:
    """Maximum time until the other server answers or exits; one that stops waits for open answers and engines."""
    endpoint = local_endpoint(settings)
    if is_free(settings) or (endpoint is not None and _runs(endpoint)):
        return OTHER_START_SECONDS
    return OTHER_START_SECONDS + settings.drain_seconds + settings.stop_seconds


def _runs(endpoint: str) -> bool:
    with Client(endpoint, check=False, retries=0) as client:
        try:
            return _answers(client)
        except Problem:
            return False


def _timeout_problem(client: Client, in_use: bool, tail: list[str], seconds: float) -> Problem:
    if in_use:
        return Problem(
            Code.SERVER_FAILED,
            f"The port or the home folder of {client.base_url} is in use, but no server answers there.",
            stage="start",
            hint="Set XINFERENCE_PORT or XINFERENCE_HOME to another one, or end the program that uses it.",
            log_tail=tail,
        )
    return Problem(Code.SERVER_FAILED, f"The server did not answer within {seconds:g} s.", stage="start", log_tail=tail)


def _tail(log: Path, start: int) -> list[str]:
    """The last lines written to `log` since it was `start` bytes long."""
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
