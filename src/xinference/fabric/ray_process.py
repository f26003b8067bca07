"""A process that imports Ray, because the server never does: it is restarted when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from xinference.fabric.frames import FrameError, read_frame, to_frame

log = logging.getLogger(__name__)
#: Time between the end of a process and the start of the next one; doubled after each one that has ended soon.
RESTART_SECONDS, MAX_RESTART_SECONDS = 1.0, 16.0
#: A process that has lived for so long has not ended soon.
LONG_SECONDS = 30.0
#: Maximum time for a process that has lost its server to leave Ray.
LEAVE_SECONDS = 5.0

T = TypeVar("T")


class RayProcess(Generic[T]):
    """Runs ``python -m MODULE DESCRIPTOR ADDRESS`` again and again, and exchanges messages with it.

    Args:
        module: the program.
        address: of Ray.
        environment: for the process, beside that of the server.
        log_file: for what the process and Ray print.
        receive: called with each message of the process.
        started, ended: called after each start, and after each end.
    """

    def __init__(
        self,
        module: str,
        address: str,
        environment: Mapping[str, str],
        log_file: Path,
        decoder: msgspec.msgpack.Decoder[T],
        receive: Callable[[T], None],
        started: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._module = module
        self._address = address
        self._environment = dict(environment)
        self._log_file = log_file
        self._decoder = decoder
        self._receive = receive
        self._started = started
        self._ended = ended
        self._writer: asyncio.StreamWriter | None = None
        self._running: asyncio.Task[None] | None = None
        self.pid: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether messages can be sent."""
        return self._writer is not None

    def start(self) -> None:
        """Keep a process running from now on."""
        self._running = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End the process."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def send(self, message: Any) -> None:
        """Send a message; it is lost if no process runs."""
        if self._writer is not None:
            self._writer.write(to_frame(message))

    async def _keep(self) -> None:
        pause = RESTART_SECONDS
        while True:
            begun = time.monotonic()
            try:
                await self._run()
            except OSError as error:
                log.warning("the process for Ray cannot be started: %s", error)
            pause = RESTART_SECONDS if time.monotonic() - begun > LONG_SECONDS else min(2 * pause, MAX_RESTART_SECONDS)
            await asyncio.sleep(pause)

    async def _run(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, self._log_file.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, str(theirs.fileno()), self._address,
                env=os.environ | self._environment, pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
                stdout=output, stderr=output,
            )  # fmt: skip
        self.pid = process.pid
        reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            self._started()
            while (message := await read_frame(reader, self._decoder)) is not None:
                self._receive(message)
        except FrameError as error:
            log.warning("the process for Ray sent what is no message: %s", error)
        finally:
            self._writer.close()
            self._writer = None
            self._ended()
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Wait until the process has left Ray; kill it if it does not."""
    try:
        async with asyncio.timeout(LEAVE_SECONDS):
            status = await process.wait()
    except (TimeoutError, asyncio.CancelledError):
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        status = await process.wait()
    log.info("the process for Ray has ended with status %d", status)
