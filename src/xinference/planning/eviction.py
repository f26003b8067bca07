"""Who leaves the memory so that another model finds room. Pure: numbers in, uids out, or a refusal with the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.units import GIB, MIB

#: The host's memory among devices, which are else the indices of GPUs.
HOST = -1
Bytes = Mapping[int, int]
"""Device -> bytes."""
State = Literal["loading", "in_use", "idle", "leaving"]


@dataclass(frozen=True)
class Resident:
    """A model on demand that holds memory; times are seconds of one clock."""

    uid: str
    state: State
    holds: Bytes
    priority: int = 0
    """The least leaves first."""
    pinned: bool = False
    """It does not leave for others."""
    last_used: float = 0.0
    """When its last answer ended, or when it became ready."""
    ready_since: float = 0.0
    ttl: float = 0.0
    """Seconds without a request after which it leaves; 0: it stays until its room is needed."""


def who_leaves(needing: str, need: Bytes, free: Bytes, residents: Sequence[Resident]) -> tuple[str, ...]:
    """The idle models that leave so that `need` fits into `free`; none if it does already.

    The least priority leaves first, then the least recently used, and nobody whose room is not needed. What is
    leaving already counts as free. Pinned models stay, and so do those in use or still loading.

    Raises:
        Problem: 503 ``no_room``, with what is needed, what is free, and who holds the rest.
    """
    free = _with(free, (resident for resident in residents if resident.state == "leaving"))
    idle = [resident for resident in residents if resident.state == "idle" and not resident.pinned]
    chosen = _least(need, free, idle)
    if chosen is None:
        raise no_room(needing, need, free, residents)
    return chosen


def whose_turn_ends(
    need: Bytes, free: Bytes, residents: Sequence[Resident], *, now: float, turn_seconds: float
) -> tuple[str, ...]:
    """As `who_leaves`, also of those in use that have had their turn: they leave after their last answer.

    None if that is not enough yet.
    """
    free = _with(free, (resident for resident in residents if resident.state == "leaving"))
    over = [
        resident
        for resident in residents
        if not resident.pinned
        and (resident.state == "idle" or (resident.state == "in_use" and now - resident.ready_since >= turn_seconds))
    ]
    return _least(need, free, over) or ()


def who_expired(residents: Iterable[Resident], now: float) -> tuple[str, ...]:
    """Those that have been idle for longer than they were told."""
    return tuple(
        resident.uid
        for resident in residents
        if resident.state == "idle" and resident.ttl > 0 and now - resident.last_used >= resident.ttl
    )


def fits(need: Bytes, free: Bytes) -> bool:
    """Whether every device has what is needed of it."""
    return all(count <= free.get(device, 0) for device, count in need.items())


def no_room(needing: str, need: Bytes, free: Bytes, residents: Sequence[Resident]) -> Problem:
    """The refusal, in numbers."""
    lacking = [device for device, count in need.items() if count > free.get(device, 0)]
    parts = [f"{needing} needs {size(need[d])} of {_place(d)}, and {size(free.get(d, 0))} are free" for d in lacking]
    held = [_held(resident, lacking) for resident in residents if any(resident.holds.get(d) for d in lacking)]
    by = f"{', '.join(held)}. " if held else ""
    return Problem(
        Code.NO_ROOM,
        f"{'; '.join(parts)}.",
        stage="room",
        # Not in the cause, which clients of one model are told: it names other models.
        hint=f"{by}Ask again when one of them is idle, or raise XINFERENCE_MODEL_MEMORY if the machine has more.",
    )


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:,.0f} MiB"


def _least(need: Bytes, free: Bytes, candidates: Sequence[Resident]) -> tuple[str, ...] | None:
    """The first candidates that suffice, less those that are not needed, the most valuable spared first."""
    # One in use leaves after all idle ones, whatever their priorities: nobody waits for those.
    order = sorted(candidates, key=lambda r: (r.state == "in_use", r.priority, r.last_used, r.uid))
    leaving: list[Resident] = []
    while not fits(need, _with(free, leaving)):
        if len(leaving) == len(order):
            return None
        leaving.append(order[len(leaving)])
    for resident in reversed(leaving.copy()):
        without = [other for other in leaving if other is not resident]
        if fits(need, _with(free, without)):
            leaving = without
    return tuple(resident.uid for resident in leaving)


def _with(free: Bytes, leaving: Iterable[Resident]) -> Bytes:
    together = dict(free)
    for resident in leaving:
        for device, count in resident.holds.items():
            together[device] = together.get(device, 0) + count
    return together


def _place(device: int) -> str:
    return "the host's memory" if device == HOST else f"GPU {device}"


def _held(resident: Resident, devices: Iterable[int]) -> str:
    why = "pinned" if resident.pinned else resident.state.replace("_", " ")
    return f"{resident.uid} holds {size(sum(resident.holds.get(d, 0) for d in devices))} ({why})"
