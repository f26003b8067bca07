"""The keeper's view of the processes below it. Standard library only: the keeper uses it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Loaded before any fork: a forked child must not run the dynamic loader.
_libc = ctypes.CDLL(None) if _LINUX else None


def become_subreaper() -> None:
    """Get every orphaned descendant as our own child, so that none can escape (Linux; elsewhere nothing)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """In a forked child: be killed when process `parent` ends, even by SIGKILL (Linux; elsewhere nothing)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)


def descendants(group: int) -> list[int]:
    """Everything that runs below us, as targets of `os.kill`.

    Elsewhere than on Linux, children in sessions of their own are not found: only process group `group` is, as one
    negative number.
    """
    if not _LINUX:
        return [-group] if _exists(-group) else []
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (parent := _parent(entry.name)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:  # grows while it is walked: a breadth-first search
        found.extend(children.get(pid, ()))
    return found


def kill(target: int, number: signal.Signals) -> None:
    """Send a signal to a process, or to a group if negative; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(target, number)


def _parent(pid: str) -> int | None:
    try:
        stat = Path("/proc", pid, "stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[1])  # the name before it may hold spaces and brackets


def _exists(target: int) -> bool:
    try:
        os.kill(target, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        return False
    return True
