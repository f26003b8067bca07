"""Replicas by number, their devices, and the request that says how many there are."""

from __future__ import annotations

import pytest

from tests.engines.plans import launch_of, plan_of, sized
from xinference.errors import Problem
from xinference.launch.place import Place, local_places
from xinference.launch.plan import SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning import replicas
from xinference.planning.plan import MAX_REPLICAS


def plan_on(*devices: tuple[int, ...], gpu_idx: tuple[int, ...] | None = None) -> SizedPlan:
    request = LaunchRequest(model_name="llama-2-chat", replica=len(devices), gpu_idx=gpu_idx)
    return sized(launch_of(request=request, use_gpu=any(devices)), devices=devices if any(devices) else ())


@pytest.mark.parametrize(
    ("running", "wanted", "numbers"),
    [((), 2, [0, 1]), ((1,), 1, [1]), ((1,), 3, [0, 1, 2]), ((0, 1, 4), 2, [0, 1]), ((4,), 2, [0, 4])],
)
def test_what_runs_keeps_its_number_and_the_lowest_free_ones_are_filled(
    running: tuple[int, ...], wanted: int, numbers: list[int]
) -> None:
    assert replicas.positions(running, wanted) == numbers


def test_a_replica_more_and_one_less_leave_the_others_devices_alone() -> None:
    plan = replicas.with_replica(plan_on((0,), (1,)), 2, Place(devices=(3,)))
    assert (plan.request.replica, plan.devices) == (3, ((0,), (1,), (3,)))
    plan = replicas.without_replica(plan, 1)
    assert (plan.request.replica, plan.devices_of(0), plan.devices_of(1), plan.devices_of(2)) == (2, (0,), (), (3,))


def test_the_devices_of_the_request_follow_so_that_the_next_start_deals_the_same() -> None:
    plan = replicas.with_replica(plan_on((0, 2), (1, 3), gpu_idx=(0, 1, 2, 3)), 2, Place(devices=(4, 5)))
    assert plan.request.gpu_idx == (0, 1, 4, 2, 3, 5)
    assert [plan.request.gpu_idx[n::3] for n in range(3)] == [(0, 2), (1, 3), (4, 5)]


def test_on_the_cpu_there_are_no_devices_to_remember() -> None:
    plan = replicas.with_replica(plan_on(()), 1, Place())
    assert (plan.request.replica, plan.devices, plan.devices_of(1)) == (2, (), ())


def test_each_replica_that_is_taken_back_says_its_own_devices() -> None:
    known = replicas.merge_places((), local_places(((0,),)), 0)  # started when it was alone
    known = replicas.merge_places(known, local_places(((9,), (1,), (2,))), 1)  # started when another had its place
    assert known == local_places(((0,), (1,), (2,)))


def test_a_replica_on_another_machine_keeps_it_whatever_happens_to_the_others() -> None:
    plan = replicas.with_replica(plan_on(()), 1, Place("n2"))
    assert plan.places == (Place(), Place("n2")) and plan.devices == ()
    plan = replicas.with_replica(plan, 2, Place("n3", (1,)))
    assert plan.devices == ((), (), (1,))
    left = replicas.without_replica(plan, 0)
    assert [left.place_of(n).node_id for n in range(3)] == ["local", "n2", "n3"]
    assert replicas.merge_places(local_places(((4,),)), (Place("n1"), Place("n2")), 1) == (
        Place(devices=(4,)),
        Place("n2"),
    )


def test_too_many_replicas_and_foreign_devices_are_refused() -> None:
    with pytest.raises(Problem, match="the maximum for one model"):
        replicas.with_replica(plan_on(*[()] * MAX_REPLICAS), MAX_REPLICAS, Place())
    with pytest.raises(Problem, match="runs on the CPU"):
        replicas.single_replica_launch(plan_on(()), (0,))


def test_a_replica_with_a_shorter_context_is_refused_with_both_numbers() -> None:
    with pytest.raises(Problem, match=r"4 slots of 2047 tokens.* 4 of 4095"):
        replicas.check_same_size(plan_of(), plan_of(context_length=2047))
