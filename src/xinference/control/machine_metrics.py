"""The machine's memory, devices and disks, and the memory of each replica, as metrics for Prometheus."""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.control.devices import Owner, owners
from xinference.files.disk_space import nearest_existing
from xinference.hardware.devices import Host, read_host
from xinference.hardware.gpu_load import GpuLoad, read_gpu_loads
from xinference.hubs.disk_folders import disk_folders
from xinference.nodes.memory_use import MemoryUse, measure
from xinference.planning.eviction import HOST

#: The name of the host's memory among the devices, which have a UUID.
HOST_NAME = "host"


@dataclass(frozen=True)
class Readings:
    """What was read of the machine."""

    host: Host
    loads: tuple[GpuLoad, ...]
    disks: Mapping[str, tuple[int, int]]
    """Name of a folder -> total and free bytes of its disk."""
    used: Mapping[int, MemoryUse]
    """Process id of an engine -> the memory of its processes."""


async def collect(controller: Controller, settings: Settings) -> list[Metric]:
    """All metrics of the machine; reads them in a thread."""
    replicas = [each for each in owners(controller.deployments()) if each.planned is not None]
    pids = {each.replica_id: each.pid for each in replicas if each.pid is not None}
    planned: dict[int, int] = defaultdict(int)
    for reserved in controller.reserved_memory().values():
        for device, size in reserved.items():
            planned[device] += size
    readings = await asyncio.to_thread(read, settings, list(pids.values()))
    by_replica = {replica: readings.used[pid] for replica, pid in pids.items() if pid in readings.used}
    return [
        *_memory(readings.host, planned, by_replica),
        _replica_memory(replicas, by_replica),
        *_loads(readings.loads),
        _disks(readings.disks),
    ]


def read(settings: Settings, pids: Iterable[int]) -> Readings:
    """Read the machine, and the memory of these processes with their children. Blocks for some milliseconds."""
    used = {pid: memory for pid in pids if (memory := measure(pid)) is not None}
    disks = {name: _disk(folder) for name, folder in disk_folders(settings).items()}
    return Readings(read_host(), read_gpu_loads(), disks, used)


def _disk(folder: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(nearest_existing(folder))
    return usage.total, usage.free


def _memory(host: Host, planned: Mapping[int, int], used: Mapping[str, MemoryUse]) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "xinference_memory_bytes",
        "Memory of the host and of each GPU: total, free, planned for models, measured of their processes",
        labels=("device", "kind"),
    )
    family.add_metric((HOST_NAME, "total"), host.memory_total)
    family.add_metric((HOST_NAME, "free"), host.memory_available)
    family.add_metric((HOST_NAME, "planned"), planned.get(HOST, 0))
    family.add_metric((HOST_NAME, "measured"), sum(each.memory for each in used.values()))
    for gpu in host.gpus:
        family.add_metric((gpu.uuid, "total"), gpu.memory_total)
        family.add_metric((gpu.uuid, "free"), gpu.memory_free)
        family.add_metric((gpu.uuid, "planned"), planned.get(gpu.index, 0))
        family.add_metric((gpu.uuid, "measured"), gpu.memory_total - gpu.memory_free)
    yield family
    info = GaugeMetricFamily("xinference_device_info", "1 for each GPU", labels=("device", "index", "name"))
    for gpu in host.gpus:
        info.add_metric((gpu.uuid, str(gpu.index), gpu.name), 1)
    yield info


def _replica_memory(replicas: Iterable[Owner], used: Mapping[str, MemoryUse]) -> Metric:
    family = GaugeMetricFamily(
        "xinference_replica_memory_bytes",
        "Memory of each replica: planned, and measured of its processes",
        labels=("model", "replica", "kind"),
    )
    for each in replicas:
        if each.pid is None or each.planned is None:
            continue
        family.add_metric((each.uid, each.replica_id, "planned"), each.planned)
        memory = used.get(each.replica_id)
        if memory is not None:
            measured = memory.memory if memory.gpu_memory is None else memory.gpu_memory
            family.add_metric((each.uid, each.replica_id, "measured"), measured)
    return family


def _loads(loads: Iterable[GpuLoad]) -> Iterator[Metric]:
    known = list(loads)
    for name, text, field in (
        ("utilization_ratio", "Share of time in which the GPU computes, 0 to 1", "utilization"),
        ("temperature_celsius", "Temperature of the GPU", "temperature"),
        ("power_watts", "Power of the GPU", "power"),
    ):
        family = GaugeMetricFamily(f"xinference_device_{name}", text, labels=("device",))
        for load in known:
            value = getattr(load, field)
            if value is not None:
                family.add_metric((load.uuid,), value)
        yield family


def _disks(disks: Mapping[str, tuple[int, int]]) -> Metric:
    family = GaugeMetricFamily(
        "xinference_disk_bytes", "The disks of the server's folders: total and free", labels=("path", "kind")
    )
    for name, (total, free) in disks.items():
        family.add_metric((name, "total"), total)
        family.add_metric((name, "free"), free)
    return family
