"""Chooses the models that are evicted to free memory for another model, or refuses with the numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.units import GIB, MIB

#: The host's memory in a mapping by device; all other keys are indices of GPUs.
HOST = -1
Bytes = Mapping[int, int]
"""Device -> bytes."""
State = Literal["loading", "in_use", "idle", "unloading"]


@dataclass(frozen=True)
class Resident:
    """An on-demand model that has memory reserved; all times are seconds of one clock."""

    uid: str
    state: State
    reserved: Bytes
    priority: int = 0
    """Models with a lower priority are evicted first."""
    pinned: bool = False
    """The model is not evicted for another model."""
    last_used: float = 0.0
    """Time at which its last answer ended, or at which it became ready."""
    ready_since: float = 0.0
    ttl: float = 0.0
    """Seconds without a request after which the model is unloaded; 0: only if another model needs its memory."""


def choose_idle(uid: str, need: Bytes, free: Bytes, residents: Sequence[Resident]) -> tuple[str, ...]:
    """The idle models to evict so that `need` fits into `free`; empty if it fits already.

    The lowest priority is chosen first, then the least recently used model; models whose memory is not needed are not
    chosen. The memory of models that are being unloaded counts as free. Models that are pinned, in use or loading are
    never chosen.

    Raises:
        Problem: 503 ``no_room``, with the memory that `uid` needs, the free memory, and the models that use the rest.
    """
    free = _with_memory_of(_unloading(residents), free)
    idle = [resident for resident in residents if resident.state == "idle" and not resident.pinned]
    chosen = _choose(need, free, idle)
    if chosen is None:
        raise no_room(uid, need, free, residents)
    return chosen


def choose_after_turns(
    need: Bytes, free: Bytes, residents: Sequence[Resident], *, now: float, turn_seconds: float
) -> tuple[str, ...]:
    """The models to evict among the idle ones and those in use that have been ready for at least `turn_seconds`.

    The order is that of `choose_idle`, with models in use last. A model in use is unloaded after its last answer. Empty
    if the memory of these models does not suffice.
    """
    evictable = [
        resident
        for resident in residents
        if not resident.pinned
        and (resident.state == "idle" or (resident.state == "in_use" and now - resident.ready_since >= turn_seconds))
    ]
    return _choose(need, _with_memory_of(_unloading(residents), free), evictable) or ()


def find_expired(residents: Iterable[Resident], now: float) -> tuple[str, ...]:
    """The models that have been idle for their time to live."""
    return tuple(
        resident.uid
        for resident in residents
        if resident.state == "idle" and resident.ttl > 0 and now - resident.last_used >= resident.ttl
    )


def fits(need: Bytes, free: Bytes) -> bool:
    """Whether every device has the needed bytes free."""
    return all(count <= free.get(device, 0) for device, count in need.items())


def no_room(uid: str, need: Bytes, free: Bytes, residents: Sequence[Resident]) -> Problem:
    """The refusal of `uid`, with the numbers of each device that has too little free memory."""
    short = [device for device, count in need.items() if count > free.get(device, 0)]
    parts = [
        f"{uid} needs {format_size(need[device])} of {_device_name(device)}, "
        f"and {format_size(free.get(device, 0))} are free"
        for device in short
    ]
    users = [_describe(resident, short) for resident in residents if any(resident.reserved.get(d) for d in short)]
    used_by = f"{', '.join(users)}. " if users else ""
    return Problem(
        Code.NO_ROOM,
        f"{'; '.join(parts)}.",
        stage="room",
        # The cause is sent to clients whose key may not allow other models, so only the hint names other models.
        hint=f"{used_by}Retry when one of them is idle, or raise XINFERENCE_MODEL_MEMORY if the machine has more.",
    )


def format_size(count: int) -> str:
    """Bytes as text, in MiB or GiB."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:,.0f} MiB"


def _choose(need: Bytes, free: Bytes, candidates: Sequence[Resident]) -> tuple[str, ...] | None:
    """The candidates to evict, in their order and without those that are not needed; None if all do not suffice.

    If several candidates are not needed, those with the highest priority stay in memory.
    """
    # A model in use comes after all idle models, whatever its priority: no client waits for an idle model.
    ordered = sorted(candidates, key=lambda r: (r.state == "in_use", r.priority, r.last_used, r.uid))
    chosen: list[Resident] = []
    while not fits(need, _with_memory_of(chosen, free)):
        if len(chosen) == len(ordered):
            return None
        chosen.append(ordered[len(chosen)])
    for resident in reversed(chosen.copy()):
        fewer = [other for other in chosen if other is not resident]
        if fits(need, _with_memory_of(fewer, free)):
            chosen = fewer
    return tuple(resident.uid for resident in chosen)


def _unloading(residents: Iterable[Resident]) -> Iterable[Resident]:
    return (resident for resident in residents if resident.state == "unloading")


def _with_memory_of(residents: Iterable[Resident], free: Bytes) -> Bytes:
    """The free bytes after these models are unloaded."""
    total = dict(free)
    for resident in residents:
        for device, count in resident.reserved.items():
            total[device] = total.get(device, 0) + count
    return total


def _device_name(device: int) -> str:
    return "the host's memory" if device == HOST else f"GPU {device}"


def _describe(resident: Resident, devices: Iterable[int]) -> str:
    state = "pinned" if resident.pinned else resident.state.replace("_", " ")
    return f"{resident.uid} uses {format_size(sum(resident.reserved.get(d, 0) for d in devices))} ({state})"
