"""The resources of this machine and their use, for the API; in bytes. Blocks for some milliseconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from xinference.hardware.devices import read_host
from xinference.units import MIB

#: Minimum interval over which the use of the processors is measured, in seconds.
WINDOW_SECONDS = 1.0


@dataclass(frozen=True)
class CpuTimes:
    """Processor time since the start of the machine, in seconds."""

    at: float
    """Time of the reading, by `time.monotonic`."""
    busy: float
    total: float


def read_cpu_times() -> CpuTimes:
    """Read the processor times of all cores together."""
    times = psutil.cpu_times()._asdict()
    guest = times.get("guest", 0.0) + times.get("guest_nice", 0.0)  # the user's time includes them
    total = sum(times.values()) - guest
    return CpuTimes(time.monotonic(), total - times["idle"] - times.get("iowait", 0.0), total)


class CpuMeter:
    """The share of the processors in use, measured over a second at least: no caller shortens it for another.

    `psutil.cpu_percent` measures from its previous call, whoever made it.
    """

    def __init__(self, read: Callable[[], CpuTimes] = read_cpu_times) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._before = self._newest = read()

    def share(self) -> float:
        """The share of all cores, from 0 to 1; 0 before there is anything to compare."""
        with self._lock:
            now = self._read()
            if now.at - self._newest.at >= WINDOW_SECONDS:
                self._before, self._newest = self._newest, now
            total = now.total - self._before.total
            return min(1.0, max(0.0, (now.busy - self._before.busy) / total)) if total > 0 else 0.0


_meter = CpuMeter()


def usage() -> dict[str, dict[str, float | int | str]]:
    """Use and total of ``cpu``, ``gpu-0`` and so on. ``cpu.usage`` is a share of all cores, 0 to 1."""
    host, memory = read_host(), psutil.virtual_memory()
    devices: dict[str, dict[str, float | int | str]] = {
        "cpu": {
            "usage": _meter.share(),
            "total": psutil.cpu_count() or 1,
            "memory_used": memory.used,
            "memory_available": host.memory_available,
            "memory_total": host.memory_total,
        }
    }
    for gpu in host.gpus:
        used = gpu.memory_total - gpu.memory_free
        devices[f"gpu-{gpu.index}"] = {
            "name": gpu.name,
            "mem_total": gpu.memory_total,
            "mem_free": gpu.memory_free,
            "mem_used": used,
        }
    return devices


def node(*, detailed: bool) -> dict[str, Any]:
    """The GPUs; with `detailed` also cores and memory."""
    host = read_host()
    facts: dict[str, Any] = {
        "gpu_count": len(host.gpus),
        "gpu_vram_total": f"{sum(gpu.memory_total for gpu in host.gpus) // MIB}MiB",
    }
    if not detailed:
        return facts
    count, memory = psutil.cpu_count() or 1, psutil.virtual_memory()
    return facts | {
        "cpu_available": round(count * (1 - _meter.share()), 2),
        "cpu_count": count,
        "mem_used": memory.used,
        "mem_available": host.memory_available,
        "mem_total": host.memory_total,
        "gpu_vram_available": f"{sum(gpu.memory_free for gpu in host.gpus) // MIB}MiB",
    }
