"""The keeper's functions on its descendants. Standard library only, because the keeper imports it."""

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
    """Make every orphaned descendant a child of this process, so that none can escape (Linux only)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """In a forked child: make the kernel kill it when process `parent` exits, also after SIGKILL (Linux only)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)


def descendants(group: int) -> list[int]:
    """All descendants of this process, as targets of `os.kill`.

    On other systems than Linux, children in separate sessions are not included, only process group `group`, as one
    negative number.
    """
    if not _LINUX:
        return [-group] if _exists(-group) else []
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (parent := _parent(entry.name)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    pids = list(children.get(os.getpid(), ()))
    for pid in pids:  # the list grows during the loop: a breadth-first search
        pids.extend(children.get(pid, ()))
    return pids


def frees_shared_memory(pid: int) -> bool:
    """Whether a process is Python's helper that frees the shared memory of others when the last of them has ended."""
    try:
        return b"multiprocessing.resource_tracker" in Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return False


def kill(target: int, number: signal.Signals) -> None:
    """Send a signal to a process, or to a group if negative; a process that no longer exists is not an error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(target, number)


def _parent(pid: str) -> int | None:
    try:
        stat = Path("/proc", pid, "stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[1])  # the name before it may contain spaces and brackets


def _exists(target: int) -> bool:
    try:
        os.kill(target, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS reports this for a group of zombies
        return False
    return True


def signal_name(number: int) -> str:
    """The name of a signal, such as ``SIGTERM``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
