"""Which GPUs each replica gets. Pure: free bytes in, indices out, or a refusal that lists each device's lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from xinference.errors import Problem, bad_request
from xinference.hardware.devices import Gpu
from xinference.launch.plan import Devices
from xinference.units import MIB

#: Most of a device's free memory that a launch may take: CUDA itself and other programs' small needs vary.
USABLE_SHARE = 0.92
NeedOn = Callable[[int], int]
"""Number of devices that share one replica -> bytes on each of them."""


@dataclass(frozen=True)
class Demand:
    """What the replicas of a launch need of GPUs."""

    replicas: int
    counts: Sequence[int]
    """Numbers of devices that one replica may be split over, smallest first."""
    need: NeedOn
    what: str
    """The model, in the words of a refusal."""
    named: Sequence[int] | None = None
    """The devices that the user named; None: any."""
    check_split: Callable[[int], None] = lambda count: None
    """Refuses a number of devices that one replica can't be split over."""


def usable_gpus(gpus: Sequence[Gpu], promised: Mapping[int, int]) -> tuple[Gpu, ...]:
    """The devices with what is really free: less what running deployments were promised and may not have taken yet.

    `promised` is bytes by device index, all deployments together. A device in MIG mode takes nothing as a whole.
    """
    return tuple(
        replace(gpu, memory_free=max(0, min(gpu.memory_free, gpu.memory_total - promised.get(gpu.index, 0))))
        for gpu in gpus
        if not gpu.mig
    )


def place_replicas(gpus: Sequence[Gpu], demand: Demand) -> Devices:
    """Give each replica the devices that were named, or those with the most free memory, as few as will hold it.

    Raises:
        Problem: 400 ``does_not_fit``, with each device and what it lacks; ``no_such_device``.
    """
    if demand.named is not None:
        groups = chosen(gpus, demand.named, demand.replicas)
        demand.check_split(len(groups[0]))
        _check_chosen(gpus, groups, demand.need, demand.what)
        return groups
    for count in demand.counts:
        spread = _spread(gpus, demand.replicas, count, demand.need(count))
        if spread is not None:
            return spread
    raise _nowhere(gpus, demand.replicas, max(demand.counts, default=1), demand.need, demand.what)


def chosen(gpus: Sequence[Gpu], indices: Sequence[int], replicas: int) -> Devices:
    """The devices that the user named, dealt out in turn: 0,1,2,3 for two replicas is 0,2 and 1,3.

    Raises:
        Problem: 400 for a device that is not there, is named twice, or does not come out even.
    """
    if not indices or len(indices) % replicas:
        raise bad_request("Invalid input. Allocated gpu must be a multiple of replica.", code="no_such_device")
    there = [gpu.index for gpu in gpus]
    for index in indices:
        if index not in there:
            raise bad_request(
                f"gpu_idx names GPU {index}, and this host has {', '.join(map(str, there)) or 'none'}.",
                hint="Use --gpu-idx with the numbers that `xinference doctor` shows.",
                code="no_such_device",
            )
    groups = tuple(tuple(indices[position::replicas]) for position in range(replicas))
    if any(len(set(group)) < len(group) for group in groups):
        raise bad_request(f"gpu_idx {list(indices)} gives one replica the same GPU twice.", code="no_such_device")
    return groups


def _check_chosen(gpus: Sequence[Gpu], groups: Devices, need: NeedOn, what: str) -> None:
    """Refuse named devices that can't hold what they are to hold, with the numbers."""
    free = {gpu.index: gpu.memory_free * USABLE_SHARE for gpu in gpus}
    for group in groups:
        for index in group:
            free[index] -= need(len(group))
    if any(left < 0 for left in free.values()):
        named = [gpu for gpu in gpus if any(gpu.index in group for group in groups)]
        raise _nowhere(named, len(groups), len(groups[0]), need, what)


def free_for_each(gpus: Sequence[Gpu], groups: Devices) -> int:
    """Bytes that each replica may count on, on each of its devices: what is free, shared evenly."""
    holders = {gpu.index: sum(gpu.index in group for group in groups) for gpu in gpus}
    return min(gpu.memory_free // holders[gpu.index] for gpu in gpus if holders[gpu.index])


def _spread(gpus: Sequence[Gpu], replicas: int, count: int, needed: int) -> Devices | None:
    free = {gpu.index: int(gpu.memory_free * USABLE_SHARE) for gpu in gpus}
    if count > len(free):
        return None
    groups: list[tuple[int, ...]] = []
    for _ in range(replicas):
        # The most free first: replicas spread by themselves, and share a device only when all have one.
        best = sorted(free, key=lambda index: (-free[index], index))[:count]
        if any(free[index] < needed for index in best):
            return None
        for index in best:
            free[index] -= needed
        groups.append(tuple(sorted(best)))
    return tuple(groups)


def _nowhere(gpus: Sequence[Gpu], replicas: int, count: int, need: NeedOn, what: str) -> Problem:
    needed = need(count)
    each = f" on each of {count} GPUs" if count > 1 else ""
    copies = f", {replicas} times" if replicas > 1 else ""
    lines = "; ".join(f"GPU {gpu.index} ({gpu.name}) {_lack(gpu, needed)}" for gpu in gpus)
    return Problem(
        "does_not_fit",
        400,
        f"{what} needs {needed / MIB:,.0f} MiB{each}{copies}: {lines or 'there is no GPU'}.",
        stage="plan",
        hint="Take a smaller quantization or size, a shorter context, more GPUs, or terminate another model.",
    )


def _lack(gpu: Gpu, needed: int) -> str:
    usable = gpu.memory_free * USABLE_SHARE
    free = f"has {gpu.memory_free / MIB:,.0f} MiB free"
    return f"{free}, {(needed - usable) / MIB:,.0f} MiB too few" if usable < needed else f"{free}, enough for one"
