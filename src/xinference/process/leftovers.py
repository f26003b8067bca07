"""End what a dead keeper left behind.

The keeper ends its engine's tree itself, and when it is killed the kernel kills the engine's main process. What is
left then are that one's children. They are known by two signs: the session the engine began, and a mark in the
environment that all of them inherit, also those that began a session of their own.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Environment variable of the keeper and all below it; its value is the keeper's socket path.
MARK = "XINFERENCE_KEEPER_SOCKET"
_DEADLINE_SECONDS = 5.0


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that cannot be confused with a later one of the same pid."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The process that has `pid` now, or None."""
        try:
            return cls(pid, psutil.Process(pid).create_time()) if pid > 0 else None
        except psutil.Error:
            return None

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def reused(self) -> bool:
        """Whether another process has the pid by now."""
        now = ProcessIdentity.of(self.pid)
        return now is not None and now != self


def end_leftovers(socket_path: Path, engine: ProcessIdentity | None) -> None:
    """SIGKILL everything of the keeper at `socket_path`, itself included, until nothing is left; at most 5 seconds.

    Blocks; run it in a thread. `engine` is its engine's main process, if known: a pid that has been given to another
    process since is never killed, nor is that one's session.
    """
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while (found := _leftovers(os.fspath(socket_path), engine)) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()  # checks the start time once more
        time.sleep(0.02)
    socket_path.unlink(missing_ok=True)


def _leftovers(mark: str, engine: ProcessIdentity | None) -> list[psutil.Process]:
    session = engine.pid if engine and not engine.reused() else None
    return [process for process in psutil.process_iter() if _belongs(process, mark, session)]


def _belongs(process: psutil.Process, mark: str, session: int | None) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        if process.status() == psutil.STATUS_ZOMBIE:  # its parent, or init, will reap it
            return False
        if session is not None and os.getsid(process.pid) == session:
            return True
        return bool(process.environ().get(MARK) == mark)
    except (psutil.Error, OSError):
        return False
