"""Memory that other deployments hold or were promised, and what is available to a launch; bytes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from xinference.hardware.devices import Gpu, Host
from xinference.launch.plan import LaunchPlan
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


NOTHING_ELSE = Occupancy()


def host_memory(host: Host, around: Occupancy) -> tuple[int, float]:
    """Bytes of the host's memory that are there for a launch, and the share of them that it may take."""
    free = max(0, host.memory_available + around.returned.get(HOST, 0) - around.host_outstanding)
    if around.host_left is not None and around.host_left < free * USABLE_OF_HOST:
        return max(0, around.host_left), 1.0
    return free, USABLE_OF_HOST


def gpus_with(gpus: Sequence[Gpu], returned: Bytes) -> tuple[Gpu, ...]:
    """The devices as they are when these bytes have been given back."""
    return tuple(
        replace(gpu, memory_free=min(gpu.memory_total, gpu.memory_free + returned.get(gpu.index, 0))) for gpu in gpus
    )


def free_bytes(host: Host, around: Occupancy) -> Bytes:
    """What a launch may take of each device."""
    free, usable = host_memory(host, around)
    gpus = usable_gpus(gpus_with(host.gpus, around.returned), around.promised)
    return {HOST: int(free * usable), **{gpu.index: int(gpu.memory_free * USABLE_OF_GPU) for gpu in gpus}}


def held_bytes(plan: LaunchPlan) -> Bytes:
    """What a plan was granted of each device, all its replicas together; nothing before it is sized."""
    if plan.sizing is None:
        return {}
    return promised_bytes(plan) or {HOST: plan.sizing.total_bytes * plan.request.replica}


def promised_bytes(plan: LaunchPlan) -> dict[int, int]:
    """GPU index -> bytes that a plan was granted there, all its replicas together."""
    granted: dict[int, int] = {}
    for group in plan.devices if plan.sizing else ():
        assert plan.sizing is not None
        for index in group:
            granted[index] = granted.get(index, 0) + plan.sizing.total_bytes // len(group)
    return granted
