"""Measures the memory of an engine's processes."""

from __future__ import annotations

from dataclasses import dataclass

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
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
        memory = root.memory_info().rss + sum(_resident(process) for process in tree[1:])
    except psutil.Error:
        return None
    return MemoryUse(memory, nvidia.processes(frozenset(process.pid for process in tree)))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # the process has exited meanwhile
        return 0
