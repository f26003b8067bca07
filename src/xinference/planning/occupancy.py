"""Memory that is reserved for other deployments, and the memory that is available to a launch; bytes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from xinference.hardware.devices import Gpu, Host
from xinference.hosts import LOCAL_NODE
from xinference.launch.place import Place
from xinference.launch.plan import SizedPlan, Sizing
from xinference.planning.eviction import HOST, Bytes
from xinference.planning.memory import USABLE_SHARE as USABLE_OF_HOST
from xinference.planning.placement import USABLE_SHARE as USABLE_OF_GPU
from xinference.planning.placement import usable_gpus


@dataclass(frozen=True)
class Occupancy:
    """Memory of all deployments except the one that is being sized; bytes."""

    reserved_gpu_bytes: Mapping[int, int] = field(default_factory=dict)
    """GPU index -> bytes that are reserved on it."""
    correction_bytes: int = 0
    """Measured minus estimated memory of an earlier launch of the same version on the same engine."""
    host_outstanding: int = 0
    """Bytes of the host that are reserved, and that the engines have not allocated yet."""
    host_remaining: int | None = None
    """Limit of the memory of all models on the host, minus the reserved bytes; None: there is no limit."""
    reclaimable: Bytes = field(default_factory=dict)
    """Bytes in use now that become free before the launch starts: those of the models that are evicted for it."""
    saves_states: bool = False
    """Whether this machine's engines may save the states of prompts."""


@dataclass(frozen=True)
class Footprint:
    """Memory of a plan, of all its replicas together; bytes."""

    reserved: Bytes
    later_bytes: int = 0
    """Part of the host's bytes that an engine allocates only as its contexts fill."""


@dataclass(frozen=True)
class Available:
    """Memory that one launch may use, for all its replicas together."""

    host_bytes: int
    host_share: float
    """Share of `host_bytes` that the launch may use."""
    gpus: tuple[Gpu, ...] = ()
    """The GPUs that can hold a model, with their free memory after the subtraction of reserved memory."""
    cpu_flags: frozenset[str] = frozenset()
    correction_bytes: int = 0
    """Measured minus estimated memory of an earlier launch of the same version on the same engine."""
    saves_states: bool = False
    """Whether engines may save the states of prompts."""

    @property
    def usable(self) -> Bytes:
        """Bytes that the launch may use of each device."""
        gpus = {gpu.index: int(gpu.memory_free * USABLE_OF_GPU) for gpu in self.gpus}
        return {HOST: int(self.host_bytes * self.host_share), **gpus}


def available(host: Host, occupancy: Occupancy) -> Available:
    """The memory of the host that one launch may use."""
    host_bytes, host_share = _host_memory(host, occupancy)
    gpus = usable_gpus(_with_reclaimed(host.gpus, occupancy.reclaimable), occupancy.reserved_gpu_bytes)
    return Available(
        host_bytes, host_share, gpus, host.cpu_flags, occupancy.correction_bytes, saves_states=occupancy.saves_states
    )


def free_bytes(host: Host, occupancy: Occupancy) -> Bytes:
    """Bytes that one launch may use of each device."""
    return available(host, occupancy).usable


def reserved_bytes(plan: SizedPlan, node_id: str = LOCAL_NODE) -> Bytes:
    """Bytes of each device of a node that are reserved for a plan, for all its replicas there together."""
    return with_states(reserved_gpu_bytes(plan, node_id), plan.sizing, _replicas_on(plan, node_id))


def with_states(on_gpus: Mapping[int, int], sizing: Sizing, replicas: int) -> Bytes:
    """The bytes on GPUs and those on the host, where the states are saved; no bytes on GPUs: all are on the host."""
    on_host = (sizing.state_bytes if on_gpus else sizing.total_bytes) * replicas
    return {**on_gpus, HOST: on_host} if on_host else dict(on_gpus)


def footprint(plan: SizedPlan, node_id: str = LOCAL_NODE) -> Footprint:
    """The memory of a plan on a node."""
    later = (plan.sizing.later_bytes + plan.sizing.state_bytes) * _replicas_on(plan, node_id)
    return Footprint(reserved_bytes(plan, node_id), later)


def reserved_gpu_bytes(plan: SizedPlan, node_id: str = LOCAL_NODE) -> dict[int, int]:
    """GPU index of a node -> bytes that are reserved for a plan on it, for all its replicas there together."""
    reserved: dict[int, int] = {}
    for place in _places_on(plan, node_id):
        for index in place.devices:
            reserved[index] = reserved.get(index, 0) + plan.sizing.engine_bytes // len(place.devices)
    return reserved


def _places_on(plan: SizedPlan, node_id: str) -> list[Place]:
    """The places on a node, also of further ranks. The server's own node may have more replicas than places."""
    ranks = (rank for place in plan.places for rank in (place, *place.ranks))
    return [place for place in ranks if place.node_id == node_id]


def _replicas_on(plan: SizedPlan, node_id: str) -> int:
    if node_id != LOCAL_NODE:
        return len(_places_on(plan, node_id))
    elsewhere = sum(place.node_id != LOCAL_NODE for place in plan.places)
    return max(0, plan.request.replica - elsewhere)


def _host_memory(host: Host, occupancy: Occupancy) -> tuple[int, float]:
    """Free bytes of the host for a launch, and the share of them that it may use."""
    free = max(0, host.memory_available + occupancy.reclaimable.get(HOST, 0) - occupancy.host_outstanding)
    if occupancy.host_remaining is not None and occupancy.host_remaining < free * USABLE_OF_HOST:
        return max(0, occupancy.host_remaining), 1.0
    return free, USABLE_OF_HOST


def _with_reclaimed(gpus: Sequence[Gpu], reclaimable: Bytes) -> tuple[Gpu, ...]:
    """The GPUs with their free memory after the evictions."""
    return tuple(
        replace(gpu, memory_free=min(gpu.memory_total, gpu.memory_free + reclaimable.get(gpu.index, 0))) for gpu in gpus
    )
