"""What the host has: cores, memory, accelerators. Read once, handed to the planner as a value."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Gpu:
    """One accelerator; sizes in bytes."""

    index: int
    name: str
    memory_total: int
    memory_free: int


@dataclass(frozen=True)
class Host:
    """The machine as the planner sees it; sizes in bytes."""

    physical_cores: int
    memory_total: int
    memory_available: int
    gpus: tuple[Gpu, ...] = ()


def read_host() -> Host:
    """Look at this machine now. A GPU that can't be asked counts as absent."""
    memory = psutil.virtual_memory()
    limit = _cgroup_limit()
    total = min(memory.total, limit or memory.total)
    return Host(
        physical_cores=_physical_cores(),
        memory_total=total,
        memory_available=min(memory.available, total),
        gpus=_nvidia(),
    )


def _physical_cores() -> int:
    """Cores this process may run on: hyper-threads add nothing to llama.cpp's matrix products."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def _cgroup_limit() -> int | None:
    for file in CGROUP_LIMITS:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return None


def _nvidia() -> tuple[Gpu, ...]:
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_nvidia_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _nvidia_gpu(pynvml: object, index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)  # type: ignore[attr-defined]  # pynvml has no types
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)  # type: ignore[attr-defined]  # pynvml has no types
    name = pynvml.nvmlDeviceGetName(handle)  # type: ignore[attr-defined]  # pynvml has no types
    return Gpu(index, name if isinstance(name, str) else name.decode(), int(memory.total), int(memory.free))
