"""The server's side of a keeper: start, connection, messages."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO, Any

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem, system_reason
from xinference.process.command import EngineCommand
from xinference.process.leftovers import KEEPER_MODULE, KEEPER_VARIABLE
from xinference.process.probe import Endpoint
from xinference.process.tree import signal_name

_MESSAGE_LIMIT = 16 * 1024 * 1024


class KeeperLink:
    """A connection to a running keeper."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Mapping[str, Any]) -> None:
        self._reader = reader
        self._writer = writer
        self.hello = hello
        """The keeper's first message: pids, context, state and, if the engine has ended, the exit."""

    @classmethod
    async def open(cls, socket_path: Path, seconds: float) -> KeeperLink:
        """Connect and wait for the hello.

        Raises:
            OSError: no keeper listens there, or (TimeoutError) it does not answer within `seconds`.
        """
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(socket_path, limit=_MESSAGE_LIMIT)
            try:
                return cls(reader, writer, json.loads(await reader.readuntil(b"\n")))
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
                writer.close()
                raise ConnectionError(f"No keeper answers at {socket_path}.") from error
            except BaseException:
                writer.close()
                raise

    async def messages(self) -> AsyncIterator[Mapping[str, Any]]:
        """The keeper's messages, until it closes the connection or ends."""
        with contextlib.suppress(ConnectionError):
            while (line := await self._reader.readline()).endswith(b"\n"):  # otherwise truncated by the keeper's death
                yield json.loads(line)

    def stop_engine(self) -> None:
        """Request the stop of the engine."""
        self._writer.write(b'{"op": "stop"}\n')

    def limit_memory(self, ceiling: int) -> None:
        """Tell the keeper the ceiling of its engine's memory in bytes; 0: none. An older keeper ignores it."""
        self._writer.write(json.dumps({"op": "limit_memory", "bytes": ceiling}).encode() + b"\n")

    def acknowledge_exit(self) -> None:
        """Half-close the connection: a keeper whose engine has ended exits now and removes its socket."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()

    def close(self) -> None:
        """Disconnect from the keeper; it waits its grace period for another owner."""
        self._writer.close()


class KeeperProcess:
    """A keeper that this process started and must reap."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
        self._process = process
        self._stderr = stderr

    @classmethod
    async def spawn(cls, spec: Mapping[str, Any], socket_path: Path) -> KeeperProcess:
        """Start a keeper in its own session, and send it its `Spec` as JSON.

        Raises:
            Problem: the system cannot start another process.
        """
        # An unnamed file: the stderr of a crashed keeper can be read, and nothing is left on the disk.
        stderr = _unnamed_file()
        try:
            # Popen, not asyncio's subprocess, which kills its process when the loop is closed.
            process = subprocess.Popen(  # noqa: ASYNC220 -- it returns in a few milliseconds
                [sys.executable, "-P", "-m", KEEPER_MODULE],
                env={**os.environ, KEEPER_VARIABLE: os.fspath(socket_path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        except OSError as error:
            stderr.close()
            raise Problem(
                Code.KEEPER_FAILED, f"The engine's keeper could not be started: {system_reason(error)}.", stage="start"
            ) from error
        keeper = cls(process, stderr)
        try:
            await asyncio.to_thread(_feed, process, json.dumps(spec).encode())
        except BaseException:
            keeper.terminate()
            raise
        return keeper

    async def connect(self, socket_path: Path, seconds: float) -> KeeperLink:
        """Wait for its socket.

        Raises:
            Problem: the keeper ended, or did not answer within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and (left := deadline - time.monotonic()) > 0:
            try:
                return await KeeperLink.open(socket_path, left)
            except OSError:
                await asyncio.sleep(0.01)
        status = self._process.poll()
        if status is None:
            cause = f"did not answer within {seconds:g} seconds"
        elif status < 0:
            cause = f"was killed by {signal_name(-status)}"
        else:
            cause = f"ended with status {status}"
        raise Problem(Code.KEEPER_FAILED, f"The engine's keeper {cause}.", stage="start", log_tail=self.stderr_tail())

    def runs(self) -> bool:
        """Whether the keeper still runs; reaps the keeper if it does not."""
        return self._process.poll() is None

    def stderr_tail(self) -> tuple[str, ...]:
        """The last 40 lines of its standard error."""
        self._stderr.seek(0)
        return tuple(self._stderr.read().decode("utf-8", "replace").splitlines()[-40:])

    def release(self) -> None:
        """Close the file of its standard error."""
        self._stderr.close()

    def terminate(self) -> None:
        """Send SIGTERM: the keeper ends its engine, if it has one, and itself."""
        self._process.terminate()


def private_run_dir(settings: Settings) -> Path:
    """The folder of the sockets, created if necessary.

    Raises:
        Problem: 500: it belongs to another user, or others may write to it: they could read our engines' keys.
        OSError: it cannot be created.
    """
    folder = settings.run_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise Problem(
            Code.UNSAFE_RUN_DIR,
            f"{folder} is not a folder that only this user can write to.",
            hint=f"Remove it, or change its owner to this user and `chmod 700 {folder}`.",
        )
    return folder


def _unnamed_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # the disk is full: an engine matters more than the last words of its keeper
        return Path(os.devnull).open("w+b")


class Ports:
    """Chooses ports for engines. An engine opens its port late, so no other engine gets it before its owner is gone."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self) -> int:
        """A loopback port that was free a moment ago. `probe` detects whether another program took it first.

        Raises:
            OSError: the system has no free port.
        """
        while (port := _unused_port()) in self._taken:
            pass
        self._taken.add(port)
        return port

    def hold(self, port: int) -> None:
        """Take the port of an adopted engine."""
        self._taken.add(port)

    def release(self, port: int) -> None:
        """Give a port back: its engine has ended, or belongs to another server."""
        self._taken.discard(port)


#: The ports of this process's engines.
ports = Ports()


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    # The pipe of a keeper that has died already is broken: `connect` reports it with the keeper's stderr.
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(data)


def keeper_spec(
    command: EngineCommand,
    endpoint: Endpoint,
    settings: Settings,
    socket_path: Path,
    log_path: Path,
    memory_ceiling: int = 0,
) -> dict[str, Any]:
    """The JSON of a keeper's `Spec`; its context has the data for a server that adopts the engine."""
    port = str(endpoint.port)
    return {
        "argv": [word.replace("{port}", port) for word in command.argv],
        "env": {
            **_cache_env(command, settings),
            **{name: value.replace("{port}", port) for name, value in command.env.items()},
        },
        "cwd": os.fspath(command.cwd) if command.cwd else None,
        "log_path": os.fspath(log_path),
        "log_bytes": settings.log_bytes,
        "socket_path": os.fspath(socket_path),
        "grace_seconds": settings.grace_seconds,
        "stop_seconds": settings.stop_seconds,
        "memory_ceiling": memory_ceiling,
        "context": {
            "endpoint": dataclasses.asdict(endpoint),
            "log_path": os.fspath(log_path),
            "context": dict(command.context),
        },
    }


def _cache_env(command: EngineCommand, settings: Settings) -> dict[str, str]:
    """The variables of the engine's folders for compiled code, except those that the server's user has set."""
    unset = {name: folder for name, folder in command.cache_variables.items() if name not in os.environ}
    if not unset:
        return {}
    with contextlib.suppress(OSError):  # on a full disk the engine makes the folders, or compiles again
        settings.compiled_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {name: os.fspath(settings.compiled_dir / folder) for name, folder in unset.items()}
