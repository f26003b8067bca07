"""The resources of the host: cores, memory, accelerators. Read once, passed to the planner as a value."""

from __future__ import annotations

from dataclasses import dataclass, field

import psutil

from xinference.hardware.cgroup import CgroupLimits, read_limits
from xinference.hardware.cpu import Cpu, read_cpu
from xinference.hardware.nvidia import Driver, Gpu, read_nvidia

__all__ = ["Driver", "Gpu", "Host", "read_host"]


@dataclass(frozen=True)
class Host:
    """The machine as a value for the planner; sizes in bytes."""

    physical_cores: int
    """Cores that this process may use completely."""
    memory_total: int
    memory_available: int
    gpus: tuple[Gpu, ...] = ()
    cpu_flags: frozenset[str] = frozenset()
    """Instruction sets by Linux's names: ``avx2``, ``avx512f``, ``amx_int8`` …"""
    cpu_name: str = ""
    numa_nodes: int = 1
    driver: Driver | None = None
    """NVIDIA's driver; None: not installed."""
    no_gpu_reason: str | None = None
    limits: CgroupLimits = field(default_factory=CgroupLimits)

    @property
    def free_memory(self) -> tuple[int, int]:
        """Free bytes of all GPUs and of the host, in the order in which hosts are compared."""
        return sum(gpu.memory_free for gpu in self.gpus), self.memory_available


def read_host() -> Host:
    """Read this machine's resources. A GPU that can't be queried counts as absent."""
    memory, cpu, limits = psutil.virtual_memory(), read_cpu(), read_limits()
    gpus, driver, no_gpu_reason = read_nvidia()
    return Host(
        physical_cores=_whole_cores(cpu, limits),
        memory_total=min(memory.total, limits.memory_limit or memory.total),
        memory_available=_minimum(memory.available, limits.memory_left),
        gpus=gpus,
        cpu_flags=cpu.flags,
        cpu_name=cpu.name,
        numa_nodes=cpu.numa_nodes,
        driver=driver,
        no_gpu_reason=no_gpu_reason,
        limits=limits,
    )


def _whole_cores(cpu: Cpu, limits: CgroupLimits) -> int:
    # Rounded down: threads that wait for each other are all as slow as the one that is throttled.
    return cpu.cores if limits.cpus is None else max(1, min(cpu.cores, int(limits.cpus)))


def _minimum(available: int, left: int | None) -> int:
    return available if left is None else min(available, left)
