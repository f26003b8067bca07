"""The memory of the machine and its owners: host, control group, GPUs and disks; planned and measured bytes."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.files.disk_space import nearest_existing
from xinference.hardware.devices import Host, read_host
from xinference.hardware.gpu_load import GpuLoad, read_gpu_loads
from xinference.launch.plan import SizedPlan, Sizing
from xinference.nodes.memory_use import MemoryUse, measure
from xinference.process.snapshot import ReplicaSnapshot
from xinference.records.record import LOCAL_NODE

#: Two readings within this time give the same answer, in seconds.
READ_SECONDS = 2.0
#: No model has saved states.
NO_STATES: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Owner:
    """One replica, with the memory that is planned for it."""

    uid: str
    replica: int
    sizing: Sizing | None
    """None: the plan has no size yet."""
    gpus: tuple[int, ...]
    """Empty: the memory of the host."""
    pid: int | None
    """None: it has no process yet, or one of another machine, which is not measured here."""
    replica_id: str = ""
    node: str = LOCAL_NODE
    """That of its first process."""

    @property
    def planned(self) -> int | None:
        """Bytes, of all its devices together with the saved states; None: the plan has no size yet."""
        return None if self.sizing is None else self.sizing.total_bytes


@dataclass(frozen=True)
class Share:
    """The bytes of a replica on one device. None: nothing is planned there, or it is not known."""

    planned: int | None = None
    planned_loaded: int | None = None
    """The part of `planned` that is in memory when the engine is ready, and pages of its file."""
    planned_states: int | None = None
    """The part of `planned` for saved states of prompts, which are written as prompts arrive."""
    measured: int | None = None
    measured_states: int | None = None
    """The part of `measured` that saved states of prompts take."""


def owners(deployments: Iterable[Deployment | BrokenDeployment]) -> list[Owner]:
    """The replicas that have a process."""
    found = []
    for uid, number, process, sized in running_replicas(deployments):
        sizing = sized.sizing if sized else None
        gpus = sized.devices_of(number) if sized else ()
        pid = process.engine_pid if process.node_id == LOCAL_NODE else None
        found.append(Owner(uid, number, sizing, tuple(gpus), pid, process.replica_id, process.node_id))
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
    states: Mapping[str, int] = NO_STATES,
) -> dict[str, Any]:
    """One machine in the answer of ``GET /v1/devices``.

    Args:
        used: the memory of each owner; None: it has no process any more.
        states: uid -> the bytes of the saved states of a model's prompts, which all its replicas share.
    """
    pairs = list(zip(held, used, strict=True))
    replicas = Counter(owner.uid for owner in held)
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
            "owners": [
                _entry(node, o, _host_share(o, u, states[o.uid] // replicas[o.uid] if o.uid in states else None))
                for o, u in pairs
            ],
        },
        "gpus": [
            {
                "index": gpu.index,
                "uuid": gpu.uuid,
                "name": gpu.name,
                "total": gpu.memory_total,
                "free": gpu.memory_free,
                **_load(load_of.get(gpu.uuid)),
                "owners": [_entry(node, o, _gpu_share(o, u)) for o, u in pairs if gpu.index in o.gpus],
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


def _entry(node: str, owner: Owner, share: Share) -> dict[str, Any]:
    return {"node": node, "model_uid": owner.uid, "replica": owner.replica, **asdict(share)}


def _host_share(owner: Owner, use: MemoryUse | None, states: int | None) -> Share:
    """A replica's bytes on the host, with its part of the saved states, which are files in the host's memory.

    The processes of a model on a GPU need memory of the host, too, for which nothing else is planned.
    """
    sizing = owner.sizing
    measured = None if use is None else use.memory + (states or 0)
    if sizing is None:
        return Share(measured=measured, measured_states=states)
    planned = sizing.state_bytes or None if owner.gpus else sizing.total_bytes
    loaded = None if owner.gpus else sizing.loaded_bytes
    return Share(planned, loaded, sizing.state_bytes, measured, states)


def _gpu_share(owner: Owner, use: MemoryUse | None) -> Share:
    """A replica's bytes on one of its GPUs. The driver's bytes are those of all its GPUs: each gets the same share."""
    number, sizing = len(owner.gpus), owner.sizing
    measured = use.gpu_memory // number if use is not None and use.gpu_memory is not None else None
    if sizing is None:
        return Share(measured=measured)
    return Share(sizing.engine_bytes // number, sizing.loaded_bytes // number, measured=measured)


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
        used = [measure(owner.pid) if owner.pid is not None else None for owner in held]
        states = {uid: size for uid in {owner.uid for owner in held} if (size := self._state_bytes(uid))}
        disks = read_disks(self._folders)
        return view(read_host(), held, used, disks, time.time(), read_gpu_loads(), states=states)
