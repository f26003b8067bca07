"""Memory that other deployments hold or were promised, and what is available to a launch; bytes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from xinference.hardware.devices import Gpu, Host
from xinference.launch.plan import SizedPlan
from xinference.planning.eviction import HOST, Bytes
from xinference.planning.memory import USABLE_SHARE as USABLE_OF_HOST
from xinference.planning.placement import USABLE_SHARE as USABLE_OF_GPU
from xinference.planning.placement import usable_gpus


@dataclass(frozen=True)
class Occupancy:
    """What else goes on where a launch is to be settled; bytes."""

    promised: Mapping[int, int] = field(default_factory=dict)
    """GPU index -> what running deployments were promised there."""
    correction_bytes: int = 0
    """What an earlier measurement of this version on this engine showed beyond the estimate."""
    host_outstanding: int = 0
    """What the others were promised of the host's memory and have not taken yet."""
    host_left: int | None = None
    """What the others leave of the memory that models may take together; None: there is no such limit."""
    returned: Bytes = field(default_factory=dict)
    """What is not free now, and will be: that of models on demand which leave for this one."""


@dataclass(frozen=True)
class Footprint:
    """Memory that a plan takes, all its replicas together; bytes."""

    held: Bytes
    later: int = 0
    """Part of the host's bytes that an engine touches only as its contexts fill."""


@dataclass(frozen=True)
class Available:
    """What one launch may take, all its replicas together."""

    host_bytes: int
    host_share: float
    """Share of `host_bytes` that it may take."""
    gpus: tuple[Gpu, ...] = ()
    """Those that take whole models, with the memory that is really free."""
    cpu_flags: frozenset[str] = frozenset()
    correction_bytes: int = 0
    """What an earlier measurement of this version on this engine showed beyond the estimate."""

    @property
    def usable(self) -> Bytes:
        """Bytes of each device."""
        gpus = {gpu.index: int(gpu.memory_free * USABLE_OF_GPU) for gpu in self.gpus}
        return {HOST: int(self.host_bytes * self.host_share), **gpus}


def available(host: Host, occupancy: Occupancy) -> Available:
    """What is left of the host for one launch."""
    host_bytes, host_share = _host_memory(host, occupancy)
    gpus = usable_gpus(_gpus_with(host.gpus, occupancy.returned), occupancy.promised)
    return Available(host_bytes, host_share, gpus, host.cpu_flags, occupancy.correction_bytes)


def free_bytes(host: Host, occupancy: Occupancy) -> Bytes:
    """What a launch may take of each device."""
    return available(host, occupancy).usable


def held_bytes(plan: SizedPlan) -> Bytes:
    """What a plan was granted of each device, all its replicas together."""
    return promised_bytes(plan) or {HOST: plan.sizing.total_bytes * plan.request.replica}


def footprint(plan: SizedPlan) -> Footprint:
    """The memory that a plan takes."""
    return Footprint(held_bytes(plan), plan.sizing.later_bytes * plan.request.replica)


def promised_bytes(plan: SizedPlan) -> dict[int, int]:
    """GPU index -> bytes that a plan was granted there, all its replicas together."""
    granted: dict[int, int] = {}
    for group in plan.devices:
        for index in group:
            granted[index] = granted.get(index, 0) + plan.sizing.total_bytes // len(group)
    return granted


def _host_memory(host: Host, occupancy: Occupancy) -> tuple[int, float]:
    """Bytes of the host's memory that are there for a launch, and the share of them that it may take."""
    free = max(0, host.memory_available + occupancy.returned.get(HOST, 0) - occupancy.host_outstanding)
    if occupancy.host_left is not None and occupancy.host_left < free * USABLE_OF_HOST:
        return max(0, occupancy.host_left), 1.0
    return free, USABLE_OF_HOST


def _gpus_with(gpus: Sequence[Gpu], returned: Bytes) -> tuple[Gpu, ...]:
    """The devices as they are when these bytes have been given back."""
    return tuple(
        replace(gpu, memory_free=min(gpu.memory_total, gpu.memory_free + returned.get(gpu.index, 0))) for gpu in gpus
    )
