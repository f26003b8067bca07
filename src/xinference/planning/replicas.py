"""Adds and removes replicas of a running deployment: their numbers, their devices and the changed request. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import msgspec

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.launch.place import Place, Places, place_of, shortest, with_place
from xinference.launch.plan import ResolvedLaunch, SizedPlan
from xinference.planning.memory import written_slots
from xinference.planning.plan import MAX_REPLICAS


def positions(running: Collection[int], count: int) -> list[int]:
    """The numbers of `count` replicas: those of the running replicas, then the lowest free ones."""
    numbers = sorted(running)[:count]
    while len(numbers) < count:
        numbers.append(lowest_free_number(numbers))
    return sorted(numbers)


def lowest_free_number(taken: Collection[int]) -> int:
    """The lowest number that is not taken."""
    return next(number for number in range(len(taken) + 1) if number not in taken)


def merge_places(known: Places, reported: Places, position: int) -> Places:
    """The places of all replicas. `reported` are the places that the adopted replica at `position` was started with.

    `reported` overrides `known` for this replica; for the others it is used only where `known` has no devices.
    """
    size = max(len(known), len(reported), position + 1)
    places = [_known_or(place_of(known, n), place_of(reported, n)) for n in range(size)]
    places[position] = place_of(reported, position)
    return shortest(places)


def _known_or(known: Place, reported: Place) -> Place:
    return reported if known == Place() else known


def with_replica(plan: SizedPlan, position: int, place: Place) -> SizedPlan:
    """The plan with an additional replica at this place.

    Raises:
        Problem: 400 ``too_many_replicas``.
    """
    count = plan.request.replica + 1
    if count > MAX_REPLICAS:
        raise Problem(Code.TOO_MANY_REPLICAS, f"{plan.uid} has {count - 1} replicas, the maximum for one model.")
    return _with_places(plan, count, with_place(plan.places, position, place))


def without_replica(plan: SizedPlan, position: int) -> SizedPlan:
    """The plan without the replica at `position`."""
    return _with_places(plan, plan.request.replica - 1, with_place(plan.places, position, Place()))


def single_replica_launch(plan: SizedPlan, gpu_idx: tuple[int, ...]) -> ResolvedLaunch:
    """The launch of one additional replica, which is sized separately: the memory of the others is already reserved.

    Raises:
        Problem: 400 ``no_such_device``, because `gpu_idx` names GPUs and the other replicas run on the CPU.
    """
    if gpu_idx and not plan.use_gpu:
        raise bad_request(
            f"gpu_idx names GPU {gpu_idx[0]}, and {plan.uid} runs on the CPU.",
            hint="Launch it with --gpu-idx under another --model-uid.",
            code=Code.NO_SUCH_DEVICE,
        )
    request = msgspec.structs.replace(plan.request, replica=1, gpu_idx=gpu_idx or None)
    return replace(plan.launch, draft=replace(plan.launch.draft, uid="", request=request), reasons=())


def check_same_size(plan: SizedPlan, probe: SizedPlan) -> None:
    """Refuse an additional replica with fewer slots or a shorter context than the others.

    Raises:
        Problem: 400 ``does_not_fit``, with both contexts.
    """
    existing, additional = plan.sizing, probe.sizing
    if additional.context_length < existing.context_length or additional.slots < existing.slots:
        raise Problem(
            Code.DOES_NOT_FIT,
            f"Another replica of {plan.uid} would have {written_slots(additional.slots)} of "
            f"{additional.context_length} tokens in the free memory, and the others have {existing.slots} of "
            f"{existing.context_length}.",
            hint="Terminate another model first, or launch this one with a shorter context.",
        )


def _with_places(plan: SizedPlan, count: int, places: Places) -> SizedPlan:
    used = [place.devices for place in places if place.devices]
    gpu_idx = plan.request.gpu_idx
    if gpu_idx is not None and used and len({len(group) for group in used}) == 1:
        gpu_idx = tuple(
            group[n] for n in range(len(used[0])) for group in used
        )  # `group_devices` restores the same groups
    request = msgspec.structs.replace(plan.request, replica=count, gpu_idx=gpu_idx)
    return plan.with_replicas(request, places)
