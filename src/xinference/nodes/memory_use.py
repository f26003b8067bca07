"""Measures the memory of an engine's processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from xinference.hardware import nvidia


@dataclass(frozen=True)
class MemoryUse:
    """Memory that an engine's processes use; bytes."""

    memory: int
    """Sum of the resident set sizes of the process tree; a shared page counts once for each process."""
    gpu_memory: int | None
    """None: there is no GPU, or its driver does not report the value."""


def measure(pid: int) -> MemoryUse | None:
    """The memory that process `pid` and its descendants use; None: it has exited. Blocks for some milliseconds."""
    try:
        memory = int(psutil.Process(pid).memory_info().rss)
        tree = [pid, *descendants(pid)]
    except psutil.Error:
        return None
    return MemoryUse(memory + sum(map(_resident, tree[1:])), nvidia.processes(frozenset(tree)))


def descendants(pid: int, folder: Path = Path("/proc")) -> list[int]:
    """The processes that a process has started, and those that they have started.

    Linux lists the children of each thread. psutil would read the parent of every process of the machine.

    Raises:
        psutil.Error: the process has exited.
    """
    found = [pid]
    for each in found:
        tasks = folder / str(each) / "task"
        try:
            for task in tasks.iterdir():
                found += map(int, (task / "children").read_text().split())
        except ProcessLookupError:  # this thread has exited meanwhile
            continue
        except OSError:  # the process has exited, or this system has no such lists
            if each == pid:
                return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return found[1:]


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # the process has exited meanwhile
        return 0
