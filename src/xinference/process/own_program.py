"""Starts the program of this process again, in this process: with the package that is installed by then."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable

import psutil


def start_again() -> None:
    """Replace this process by its own program with the same arguments; its pid and its children stay.

    Files that were opened by Python are closed by the kernel.

    Raises:
        OSError: the interpreter cannot be started.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 -- the arguments are this process's own


class Inherited:
    """The children that an earlier program of this process has started: nobody else waits for their ends."""

    def __init__(self, pids: Iterable[int]) -> None:
        """`pids` may be those of other processes' children, too. Blocks."""
        own = os.getpid()
        self._pids = {pid for pid in pids if _parent(pid) == own}

    def reap(self) -> None:
        """Remove the children that have ended from the kernel's list of processes."""
        for pid in tuple(self._pids):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = pid
            if ended:
                self._pids.discard(pid)


def _parent(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.Error:
        return None
