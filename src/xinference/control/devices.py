"""The memory of the machine and who owns it: host, control group, GPUs and disks; planned and measured bytes."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from xinference.deployments.deployment import BrokenDeployment, Deployment
from xinference.files.disk_space import nearest_existing
from xinference.hardware.devices import Host, read_host
from xinference.hardware.gpu_load import GpuLoad, read_gpu_loads
from xinference.launch.plan import SizedPlan
from xinference.nodes.memory_use import MemoryUse, measure
from xinference.process.snapshot import ReplicaSnapshot
from xinference.records.record import LOCAL_NODE

#: Two readings within this time give the same answer, in seconds.
READ_SECONDS = 2.0


@dataclass(frozen=True)
class Owner:
    """One replica, with the memory that is planned for it."""

    uid: str
    replica: int
    planned: int | None
    """Bytes, of all its devices together; None: the plan has no size yet."""
    gpus: tuple[int, ...]
    """Empty: the memory of the host."""
    pid: int | None
    """None: it has no process yet, or one of another machine, which is not measured here."""
    replica_id: str = ""
    node: str = LOCAL_NODE
    """That of its first process."""


def owners(deployments: Iterable[Deployment | BrokenDeployment]) -> list[Owner]:
    """The replicas that have a process."""
    found = []
    for uid, number, process, sized in running_replicas(deployments):
        planned = sized.sizing.total_bytes if sized else None
        gpus = sized.devices_of(number) if sized else ()
        pid = process.engine_pid if process.node_id == LOCAL_NODE else None
        found.append(Owner(uid, number, planned, tuple(gpus), pid, process.replica_id, process.node_id))
    return found


class RunningReplica(NamedTuple):
    """A replica that has a process, on whatever node."""

    uid: str
    number: int
    process: ReplicaSnapshot
    sized: SizedPlan | None
    """None: the plan has no size yet."""


def running_replicas(deployments: Iterable[Deployment | BrokenDeployment]) -> Iterator[RunningReplica]:
    """The replicas of all deployments that have a process."""
    for deployment in deployments:
        if isinstance(deployment, BrokenDeployment):
            continue
        for replica in deployment.snapshot.replicas:
            if replica.process is not None:
                yield RunningReplica(deployment.uid, replica.number, replica.process, deployment.snapshot.sized)


def view(
    host: Host,
    held: Sequence[Owner],
    used: Sequence[MemoryUse | None],
    disks: Sequence[dict[str, Any]],
    now: float,
    loads: Iterable[GpuLoad] = (),
    node: str = LOCAL_NODE,
) -> dict[str, Any]:
    """One machine in the answer of ``GET /v1/devices``.

    `used` has the memory of each owner; None: it has no process any more.
    """
    pairs = list(zip(held, used, strict=True))
    load_of = {load.uuid: load for load in loads}
    return {
        "node": node,
        "time": now,
        "host": {
            "name": host.cpu_name or None,
            "cores": host.physical_cores,
            "total": host.memory_total,
            "free": host.memory_available,
            "control_group": {
                "memory_limit": host.limits.memory_limit,
                "memory_left": host.limits.memory_left,
                "cpus": host.limits.cpus,
            },
            # The processes of a model on a GPU need memory of the host, too, for which nothing is planned.
            "owners": [_owner(node, o, None if o.gpus else o.planned, u.memory if u else None) for o, u in pairs],
        },
        "gpus": [
            {
                "index": gpu.index,
                "uuid": gpu.uuid,
                "name": gpu.name,
                "total": gpu.memory_total,
                "free": gpu.memory_free,
                **_load(load_of.get(gpu.uuid)),
                "owners": [_gpu_owner(node, owner, use) for owner, use in pairs if gpu.index in owner.gpus],
            }
            for gpu in host.gpus
        ],
        "no_gpu_reason": host.no_gpu_reason,
        "disks": list(disks),
    }


def _load(load: GpuLoad | None) -> dict[str, float | None]:
    """The load of a GPU; null: the device does not report it."""
    return {
        "utilization": load.utilization if load else None,
        "temperature": load.temperature if load else None,
        "power": load.power if load else None,
    }


def _owner(node: str, owner: Owner, planned: int | None, measured: int | None) -> dict[str, Any]:
    return {
        "node": node,
        "model_uid": owner.uid,
        "replica": owner.replica,
        "planned": planned,
        "measured": measured,
    }


def _gpu_owner(node: str, owner: Owner, use: MemoryUse | None) -> dict[str, Any]:
    """A replica on one of its GPUs. The driver's bytes are those of all its GPUs, so each gets the same share."""
    number = len(owner.gpus)
    measured = use.gpu_memory // number if use is not None and use.gpu_memory is not None else None
    return _owner(node, owner, None if owner.planned is None else owner.planned // number, measured)


def read_disks(paths: Iterable[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Total and free bytes of the file systems with these folders, each once with the names of its folders."""
    disks: dict[int, dict[str, Any]] = {}
    for name, path in paths:
        try:
            existing = nearest_existing(path)
            device, usage = existing.stat().st_dev, shutil.disk_usage(existing)
        except OSError:  # such as a file system whose server does not answer
            continue
        if device in disks:
            disks[device]["holds"].append(name)
        else:
            disks[device] = {"node": LOCAL_NODE, "holds": [name], "total": usage.total, "free": usage.free}
    return list(disks.values())


class DeviceReader:
    """Reads the machine, at most every 2 s however many ask."""

    def __init__(
        self,
        deployments: Callable[[], Iterable[Deployment | BrokenDeployment]],
        folders: Sequence[tuple[str, Path]],
        clock: Callable[[], float] = time.monotonic,
        state_bytes: Callable[[str], int] = lambda uid: 0,
        workers: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None,
    ) -> None:
        """
        Args:
            folders: the names and the folders whose disks are read.
            workers: reads the machines of a cluster's workers; None: there is no cluster.
            state_bytes: the bytes of a model's saved states of prompts, which all its replicas share.
        """
        self._workers = workers
        self._state_bytes = state_bytes
        self._deployments = deployments
        self._folders = folders
        self._clock = clock
        self._reading = asyncio.Lock()
        self._read_at = -READ_SECONDS
        self._newest: dict[str, Any] = {}

    async def read(self) -> dict[str, Any]:
        """The state of the machine now."""
        async with self._reading:
            if self._clock() - self._read_at >= READ_SECONDS:
                held = [owner for owner in owners(self._deployments()) if owner.node == LOCAL_NODE]
                here = await asyncio.to_thread(self._read, held)
                self._newest = {**here, "workers": [] if self._workers is None else await self._workers()}
                self._read_at = self._clock()
            return self._newest

    def _read(self, held: Sequence[Owner]) -> dict[str, Any]:
        used = [self._measure(owner, held) for owner in held]
        return view(read_host(), held, used, read_disks(self._folders), time.time(), read_gpu_loads())

    def _measure(self, owner: Owner, held: Sequence[Owner]) -> MemoryUse | None:
        """The memory of a replica's processes, and its share of the saved states of its model."""
        used = measure(owner.pid) if owner.pid is not None else None
        states = self._state_bytes(owner.uid)
        if used is None or not states:
            return used
        share = states // sum(each.uid == owner.uid for each in held)
        return replace(used, memory=used.memory + share)
