"""Replicas that come and go while a deployment runs: their numbers, devices, and the request that says so. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import msgspec

from xinference.errors import Problem, bad_request
from xinference.launch.plan import Devices, ResolvedLaunch, SizedPlan
from xinference.planning.plan import MAX_REPLICAS


def positions(running: Collection[int], wanted: int) -> list[int]:
    """The numbers of `wanted` replicas: those that run first, then the lowest free ones."""
    kept = sorted(running)[:wanted]
    while len(kept) < wanted:
        kept.append(lowest_free(kept))
    return sorted(kept)


def lowest_free(taken: Collection[int]) -> int:
    """The number of the next replica."""
    return next(number for number in range(len(taken) + 1) if number not in taken)


def merged(known: Devices, told: Devices, position: int) -> Devices:
    """The devices of all replicas, when the one at `position` says what it was started with."""
    size = max(len(known), len(told))
    groups = [_group(known, n) or _group(told, n) for n in range(size)]
    if position < size:
        groups[position] = _group(told, position)
    return tuple(groups)


def with_replica(plan: SizedPlan, position: int, group: Sequence[int]) -> SizedPlan:
    """The plan with one replica more, on these devices (none: the CPU).

    Raises:
        Problem: 400, there are too many.
    """
    count = plan.request.replica + 1
    if count > MAX_REPLICAS:
        raise Problem(
            "too_many_replicas", 400, f"{plan.uid} has {count - 1} replicas, the most that one model may have."
        )
    groups = [_group(plan.devices, n) for n in range(max(len(plan.devices), position + 1))]
    groups[position] = tuple(group)
    return _with_groups(plan, count, tuple(groups))


def without_replica(plan: SizedPlan, position: int) -> SizedPlan:
    """The plan with one replica less."""
    groups = tuple(() if n == position else group for n, group in enumerate(plan.devices))
    return _with_groups(plan, plan.request.replica - 1, groups)


def one_alone(plan: SizedPlan, gpu_idx: tuple[int, ...]) -> ResolvedLaunch:
    """A launch of one further replica, to be sized beside all that runs, this deployment's own replicas too.

    Raises:
        Problem: 400, GPUs are named and the others run on the CPU.
    """
    if gpu_idx and not plan.use_gpu:
        raise bad_request(
            f"gpu_idx names GPU {gpu_idx[0]}, and {plan.uid} runs on the CPU.",
            hint="Launch it with --gpu-idx under another --model-uid.",
            code="no_such_device",
        )
    request = msgspec.structs.replace(plan.request, replica=1, gpu_idx=gpu_idx or None)
    return replace(plan.launch, draft=replace(plan.launch.draft, uid="", request=request), reasons=())


def check_same_size(plan: SizedPlan, probe: SizedPlan) -> None:
    """Refuse a replica that would answer less than the others.

    Raises:
        Problem: 400 ``does_not_fit``, with both contexts.
    """
    have, fits = plan.sizing, probe.sizing
    if fits.context_length < have.context_length or fits.slots < have.slots:
        raise Problem(
            "does_not_fit",
            400,
            f"Another replica of {plan.uid} would have {fits.slots} slots of {fits.context_length} tokens in the "
            f"free memory, and the others have {have.slots} of {have.context_length}.",
            hint="Terminate another model first, or launch this one with a shorter context.",
        )


def _with_groups(plan: SizedPlan, count: int, groups: Devices) -> SizedPlan:
    used = [group for group in groups if group]
    gpu_idx = plan.request.gpu_idx
    if gpu_idx is not None and used and len({len(group) for group in used}) == 1:
        gpu_idx = tuple(group[n] for n in range(len(used[0])) for group in used)  # dealt out again, it gives the same
    request = msgspec.structs.replace(plan.request, replica=count, gpu_idx=gpu_idx)
    return plan.with_replicas(request, groups if used else ())


def _group(groups: Devices, number: int) -> tuple[int, ...]:
    return groups[number] if number < len(groups) else ()
