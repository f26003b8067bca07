"""Kills the processes of a dead keeper that still run.

A keeper ends its engine's process tree itself, and when the keeper is killed, the kernel kills the engine's main
process. Only children of the engine can survive. They are identified by the session that the engine started, and by an
environment variable that all of them inherit, also those that started their own session.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import psutil

from xinference.process.scratch import remove_scratch

#: Environment variable of the keeper and all its descendants; its value is the keeper's socket path.
KEEPER_VARIABLE = "XINFERENCE_KEEPER_SOCKET"
#: In the command line of a keeper.
KEEPER_MODULE = "xinference.process.keeper"
_DEADLINE_SECONDS = 5.0


@dataclass(frozen=True)
class ProcessIdentity:
    """A process by pid and start time, so that a later process with the same pid is not mistaken for it."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The current process with `pid`, or None."""
        try:
            return cls(pid, psutil.Process(pid).create_time()) if pid > 0 else None
        except psutil.Error:
            return None

    def alive(self) -> bool:
        """Whether the process still runs; a zombie does not run."""
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def reused(self) -> bool:
        """Whether another process has the pid now."""
        now = ProcessIdentity.of(self.pid)
        return now is not None and now != self


def end_leftovers(socket_path: Path, engine: ProcessIdentity | None) -> None:
    """SIGKILL all processes of the keeper at `socket_path`, including itself, until none runs; at most 5 seconds.

    Blocks; run it in a thread. `engine` is the engine's main process, if known: if another process has its pid now,
    neither that process nor its session is killed.
    """
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while (processes := _leftovers(os.fspath(socket_path), engine)) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()  # checks the start time again
        time.sleep(0.02)
    remove_scratch(socket_path)
    socket_path.unlink(missing_ok=True)


def end_keepers(run_dir: Path, seconds: float) -> list[str]:
    """SIGKILL all processes of the keepers in `run_dir` that do not end by themselves within `seconds`. Blocks.

    Returns the names of their sockets.
    """
    deadline = time.monotonic() + seconds
    while (names := sorted(keepers_of(run_dir))) and time.monotonic() < deadline:
        time.sleep(0.2)
    for name in names:
        end_leftovers(run_dir / f"{name}.sock", None)
    return names


def stop_keepers(run_dir: Path, seconds: float) -> int:
    """Stop the engines of all keepers in `run_dir`, and kill those that need longer than `seconds`. Blocks.

    Returns their number.
    """
    keepers = keepers_of(run_dir)
    for pid in chain.from_iterable(keepers.values()):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if KEEPER_MODULE in process.cmdline():
                process.terminate()
    if keepers:
        end_keepers(run_dir, seconds)
    return len(keepers)


def keepers_of(run_dir: Path) -> dict[str, list[int]]:
    """The processes of all keepers whose sockets are in `run_dir`, by the name of the socket. Blocks."""
    found: dict[str, list[int]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = Path(process.environ().get(KEEPER_VARIABLE, ""))
            if mark.parent == run_dir and process.status() != psutil.STATUS_ZOMBIE:
                found.setdefault(mark.stem, []).append(process.pid)
    return found


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
        return bool(process.environ().get(KEEPER_VARIABLE) == mark)
    except (psutil.Error, OSError):
        return False
