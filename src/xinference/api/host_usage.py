"""The resources of this machine and their use, for the API; in bytes. Blocks for some milliseconds."""

from __future__ import annotations

from typing import Any

import psutil

from xinference.hardware.devices import read_host
from xinference.units import MIB


def usage() -> dict[str, dict[str, float | int | str]]:
    """Use and total of ``cpu``, ``gpu-0`` and so on. ``cpu.usage`` is a share of all cores, 0 to 1."""
    host, memory = read_host(), psutil.virtual_memory()
    devices: dict[str, dict[str, float | int | str]] = {
        "cpu": {
            "usage": psutil.cpu_percent() / 100,  # since the previous call
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
        "cpu_available": round(count * (1 - psutil.cpu_percent() / 100), 2),
        "cpu_count": count,
        "mem_used": memory.used,
        "mem_available": host.memory_available,
        "mem_total": host.memory_total,
        "gpu_vram_available": f"{sum(gpu.memory_free for gpu in host.gpus) // MIB}MiB",
    }
