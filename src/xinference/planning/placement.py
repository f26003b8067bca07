"""Assigns GPUs to the replicas of a launch, or refuses it with the missing memory of each device. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.hardware.devices import Gpu
from xinference.launch.plan import Devices
from xinference.units import MIB

#: Maximum share of a device's free memory that a launch may take: the needs of CUDA and of other programs vary.
USABLE_SHARE = 0.92
BytesPerDevice = Callable[[int], int]
"""Number of devices that share one replica -> required bytes on each of them."""


@dataclass(frozen=True)
class GpuDemand:
    """Requirements of a launch's replicas on GPUs."""

    replicas: int
    counts: Sequence[int]
    """Numbers of devices over which one replica may be split, smallest first."""
    required: BytesPerDevice
    description: str
    """The model and the requested dimensions, as the refusal names them."""
    requested: Sequence[int] | None = None
    """Indices of the devices in the request; None: any device."""
    check_split: Callable[[int], None] = lambda count: None
    """Raises `Problem` for a number of devices over which one replica can't be split."""


def usable_gpus(gpus: Sequence[Gpu], reserved: Mapping[int, int]) -> tuple[Gpu, ...]:
    """The devices with their free memory reduced by the memory that is reserved but not allocated yet.

    `reserved` is bytes by device index, all deployments together. A device in MIG mode is left out: it can't be used
    as a whole.
    """
    return tuple(
        replace(gpu, memory_free=max(0, min(gpu.memory_free, gpu.memory_total - reserved.get(gpu.index, 0))))
        for gpu in gpus
        if not gpu.mig
    )


def place_replicas(gpus: Sequence[Gpu], demand: GpuDemand) -> Devices:
    """Assign each replica the requested devices, or the minimum number of devices that hold it, most free memory first.

    Raises:
        Problem: 400 ``does_not_fit``, with the missing memory of each device; ``no_such_device``.
    """
    if demand.requested is not None:
        groups = group_devices(gpus, demand.requested, demand.replicas)
        demand.check_split(len(groups[0]))
        _check_groups(gpus, groups, demand)
        return groups
    for count in demand.counts:
        groups_of_count = _spread(gpus, demand.replicas, count, demand.required(count))
        if groups_of_count is not None:
            return groups_of_count
    raise _does_not_fit(gpus, max(demand.counts, default=1), demand)


def group_devices(gpus: Sequence[Gpu], indices: Sequence[int], replicas: int) -> Devices:
    """Assign the requested devices to the replicas in turn: 0,1,2,3 for two replicas gives 0,2 and 1,3.

    Raises:
        Problem: 400, a device does not exist, is named twice for one replica, or the number of devices is not a
            multiple of the number of replicas.
    """
    if not indices or len(indices) % replicas:
        raise bad_request("Invalid input. Allocated gpu must be a multiple of replica.", code=Code.NO_SUCH_DEVICE)
    existing = [gpu.index for gpu in gpus]
    for index in indices:
        if index not in existing:
            raise bad_request(
                f"gpu_idx names GPU {index}, and this host has {', '.join(map(str, existing)) or 'none'}.",
                hint="Use --gpu-idx with the numbers that `xinference doctor` shows."
                if existing
                else "Leave --gpu-idx out.",
                code=Code.NO_SUCH_DEVICE,
            )
    groups = tuple(tuple(indices[position::replicas]) for position in range(replicas))
    if any(len(set(group)) < len(group) for group in groups):
        raise bad_request(f"gpu_idx {list(indices)} gives one replica the same GPU twice.", code=Code.NO_SUCH_DEVICE)
    return groups


def _check_groups(gpus: Sequence[Gpu], groups: Devices, demand: GpuDemand) -> None:
    """Refuse requested devices with too little free memory."""
    free = {gpu.index: gpu.memory_free * USABLE_SHARE for gpu in gpus}
    for group in groups:
        for index in group:
            free[index] -= demand.required(len(group))
    if any(remaining < 0 for remaining in free.values()):
        requested = [gpu for gpu in gpus if any(gpu.index in group for group in groups)]
        raise _does_not_fit(requested, len(groups[0]), demand)


def free_for_each(gpus: Sequence[Gpu], groups: Devices) -> int:
    """Free bytes for each replica on each of its devices: the replicas of a device share its memory equally."""
    replicas = {gpu.index: sum(gpu.index in group for group in groups) for gpu in gpus}
    return min(gpu.memory_free // replicas[gpu.index] for gpu in gpus if replicas[gpu.index])


def _spread(gpus: Sequence[Gpu], replicas: int, count: int, required: int) -> Devices | None:
    """Groups of `count` devices with `required` free bytes on each; None if there are too few."""
    free = {gpu.index: int(gpu.memory_free * USABLE_SHARE) for gpu in gpus}
    if count > len(free):
        return None
    groups: list[tuple[int, ...]] = []
    for _ in range(replicas):
        # The most free memory first: this spreads the replicas, and equal devices are shared only if all are used.
        best = sorted(free, key=lambda index: (-free[index], index))[:count]
        if any(free[index] < required for index in best):
            return None
        for index in best:
            free[index] -= required
        groups.append(tuple(sorted(best)))
    return tuple(groups)


def _does_not_fit(gpus: Sequence[Gpu], count: int, demand: GpuDemand) -> Problem:
    required = demand.required(count)
    each = f" on each of {count} GPUs" if count > 1 else ""
    copies = f", {demand.replicas} times" if demand.replicas > 1 else ""
    lines = "; ".join(f"GPU {gpu.index} ({gpu.name}) {_shortfall(gpu, required)}" for gpu in gpus)
    return Problem(
        Code.DOES_NOT_FIT,
        f"{demand.description} needs {required / MIB:,.0f} MiB{each}{copies}: {lines or 'there is no GPU'}.",
        stage="plan",
        hint="Use a smaller quantization or size, a shorter context or more GPUs, or terminate another model.",
    )


def _shortfall(gpu: Gpu, required: int) -> str:
    usable = gpu.memory_free * USABLE_SHARE
    free = f"has {gpu.memory_free / MIB:,.0f} MiB free"
    missing = required - usable
    return f"{free}, {missing / MIB:,.0f} MiB too few" if missing > 0 else f"{free}, enough for one replica"
