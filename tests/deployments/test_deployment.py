"""The owner of a deployment: launches, snapshots, and every way to end. No process, no sleep."""

from __future__ import annotations

import asyncio

import pytest

from tests.deployments.doubles import World, inbox_of, turns
from tests.deployments.steps import large, launched, statuses
from xinference.deployments.messages import (
    Defect,
)
from xinference.deployments.snapshot import DeploymentSnapshot, Status
from xinference.error_codes import Code
from xinference.errors import Problem

# -- a launch -----------------------------------------------------------------------------------------------------


async def test_a_launch_goes_through_its_stages_and_is_routed_when_it_answers(world: World) -> None:
    deployment = world.add()
    assert deployment.launching and (deployment.status, deployment.snapshot.stage) == ("CREATING", "pending")
    await turns()
    assert world.preparation.calls == ["fetch", "environment"]
    assert (deployment.status, deployment.route.targets) == ("LOADING", ())
    (replica,) = world.starter.running
    replica.become_ready()
    await turns()
    assert not deployment.launching and deployment.status is Status.READY
    (target,) = deployment.route.targets
    assert target.replica_id == replica.snapshot.replica_id
    assert world.said() == ["plan", "plan", "start", "ready"]  # the second one after the weights were read
    assert [row.replica_id for row in world.store.replicas("one")] == [replica.snapshot.replica_id]


async def test_what_is_measured_is_kept_for_the_next_estimate(world: World) -> None:
    deployment = await launched(world)
    assert deployment.description["memory_used_bytes"] == 1 << 20
    assert len(world.store.measurements(deployment.plan.version.version_id, "llama.cpp")) == 1


async def test_an_instance_shows_its_slots_and_planned_memory_once_its_plan_is_sized(world: World) -> None:
    names = ("slots", "planned_memory_bytes", "adapters")
    deployment = world.add()
    assert [deployment.instance[name] for name in names] == [None, None, []]
    await turns()
    sizing = world.ledger["one"].sizing
    assert [deployment.instance[name] for name in names] == [sizing.slots, sizing.total_bytes, []]


async def test_a_target_that_dies_leaves_the_route_and_is_started_again(world: World) -> None:
    deployment = await launched(world)
    world.starter.instant = False
    world.starter.running[0].die()
    await turns()
    assert (deployment.route.targets, deployment.status, deployment.route.recovering) == ((), "RECOVERING", True)
    world.starter.running[0].become_ready()
    await turns()
    assert deployment.status is Status.READY and len(deployment.route.targets) == 1
    assert world.contents()[-1] == "ready again"


async def test_a_first_start_that_fails_fails_the_launch_with_the_engines_words(world: World) -> None:
    deployment = world.add(replica=2)
    await turns()
    first, second = world.starter.running
    first.die()
    await turns()
    problem = deployment.problem
    assert problem is not None and (problem.code, problem.stage) == ("engine_died", "start")
    assert second.stopped and world.store.replicas("one") == []
    assert deployment.status is Status.ERROR and statuses(deployment) == ["ERROR", "ERROR"]
    assert world.ledger == {}, "its memory is given back"


async def test_an_engine_that_can_not_be_started_at_all_leaves_no_row(world: World) -> None:
    world.starter.refusal = Problem(
        "socket_folder",
        "It is not safe.",
        status=500,
    )
    deployment = world.add()
    await turns()
    assert deployment.problem is not None and deployment.problem.code == "socket_folder"
    assert world.store.replicas("one") == []


@pytest.mark.parametrize("step", ["fetch", "environment"])
async def test_a_preparation_that_fails_fails_the_launch_in_its_stage(world: World, step: str) -> None:
    world.preparation.problems[step] = Problem("gone", "It is gone.", status=502, stage=step)
    deployment = world.add()
    await turns()
    assert deployment.problem is not None and (deployment.problem.code, deployment.problem.stage) == ("gone", step)
    (row,) = world.store.deployments()
    assert row.problem is not None and row.problem.code == "gone"
    assert world.said()[-1] == step


async def test_one_that_does_not_fit_is_refused_and_its_environment_is_not_built(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.preparation, "read_weights", large(world))
    deployment = world.add()
    await turns()
    assert deployment.problem is not None and deployment.problem.code == "does_not_fit"
    assert "environment" not in world.preparation.calls


async def test_two_launches_at_once_are_sized_beside_each_other(world: World) -> None:
    world.preparation.held.add("environment")
    first, second = world.add("one"), world.add("two")
    await turns()
    ledger = world.ledger
    assert ledger.keys() == {"one", "two"}, "both hold their memory while their environments are built"
    large, small = first.snapshot.sized, second.snapshot.sized
    assert large is not None and small is not None
    assert small.sizing.total_bytes <= large.sizing.total_bytes


async def test_a_defect_of_ours_ends_as_a_failed_row(world: World) -> None:
    deployment = await launched(world)
    inbox_of(deployment).put(Defect(KeyError("x")))
    await turns()
    assert deployment.problem is not None and deployment.problem.code == "internal_error"
    assert world.starter.running == []


async def test_a_store_that_can_not_be_written_keeps_no_engine_and_does_not_keep_the_owner_from_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = await launched(world)
    (replica,) = world.starter.running

    def full(*arguments: object) -> None:
        raise Problem(Code.STORE_UNUSABLE, "The disk is full.")

    for write in ("add_event", "set_problem", "remove_replica", "set_request"):
        monkeypatch.setattr(world.store, write, full)
    with pytest.raises(Problem, match="The disk is full"):
        await deployment.add_replica()
    assert deployment.ready and statuses(deployment) == ["READY"], "it goes on as it was"
    await turns()
    replica.die()
    await turns()
    assert world.starter.running == [] and deployment.status is Status.ERROR
    assert world.ledger == {}
    with pytest.raises(Problem, match="not running"):
        await deployment.add_replica()
    monkeypatch.undo()
    await deployment.end("terminate")
    assert world.starter.running == []


# -- the end, at any time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fetch", "environment"])
async def test_the_end_cancels_a_preparation(world: World, step: str) -> None:
    world.preparation.held.add(step)
    deployment = world.add()
    await turns()
    await deployment.end("terminate")
    assert world.preparation.cancelled == [step]
    assert deployment.problem is None and str(deployment.status) == "TERMINATING"
    assert world.ledger == {}


async def test_the_end_leaves_the_queue_for_memory(world: World) -> None:
    world.load.settles = 0  # the admission waits for the gateways
    deployment = world.add()
    await turns()
    assert world.queue == ["one"]
    await deployment.end("terminate")
    assert world.queue == []
    assert world.starter.started == []


async def test_the_end_ends_an_engine_that_starts(world: World) -> None:
    deployment = world.add()
    await turns()
    await deployment.end("stop")
    (replica,) = world.starter.started
    assert replica.stopped and not replica.detached and world.store.replicas("one") == []
    assert deployment.problem is None


async def test_detach_while_loading_leaves_the_engine_and_its_row(world: World) -> None:
    deployment = world.add()
    await turns()
    await deployment.end("detach")
    (replica,) = world.starter.started
    assert replica.detached and not replica.stopped
    assert [row.replica_id for row in world.store.replicas("one")] == [replica.snapshot.replica_id]
    assert deployment.problem is None


async def test_the_end_does_not_wait_for_the_last_answers_of_a_removed_replica(world: World) -> None:
    deployment = await launched(world, replica=2)
    world.load.settles = 0
    removing = asyncio.create_task(deployment.remove_replica(0))
    await turns()
    await deployment.end("terminate")
    assert await removing == 1
    assert world.starter.running == []


async def test_the_end_ends_a_replica_that_starts_and_whoever_waits_is_told(world: World) -> None:
    deployment = await launched(world)
    world.starter.instant = False
    waiting = asyncio.create_task(deployment.add_replica())
    await turns()
    await deployment.end("terminate")
    with pytest.raises(Problem, match="stopped before it was ready"):
        await waiting
    assert world.starter.running == [] and world.store.replicas("one") == []


async def test_ending_twice_ends_once(world: World) -> None:
    deployment = await launched(world)
    await asyncio.gather(deployment.end("terminate"), deployment.end("stop"))
    await deployment.end("detach")
    assert world.starter.running == []
    with pytest.raises(Problem, match="not running"):
        await deployment.add_replica()
    with pytest.raises(Problem, match="not running"):
        await deployment.remove_replica(0)


async def test_a_request_that_is_in_the_inbox_at_the_end_is_answered(world: World) -> None:
    deployment = await launched(world)
    ending = asyncio.create_task(deployment.end("terminate"))
    await asyncio.sleep(0)
    adding = asyncio.create_task(deployment.add_replica())
    await ending
    with pytest.raises(Problem, match="not running"):
        await adding


# -- snapshots ----------------------------------------------------------------------------------------------------


def frozen(snapshot: DeploymentSnapshot) -> str:
    return repr(snapshot)


async def test_a_snapshot_never_changes_after_it_was_published(world: World) -> None:
    seen: list[tuple[DeploymentSnapshot, str]] = []
    publish = world.context.publish

    def note() -> None:
        publish()
        snapshot = world.published[-1]["one"]
        seen.append((snapshot, frozen(snapshot)))

    object.__setattr__(world.context, "publish", note)
    deployment = await launched(world, replica=2)
    world.starter.running[0].die()
    await turns()
    await deployment.add_replica()
    await deployment.remove_replica(0)
    await deployment.end("terminate")
    assert len(seen) > 8
    assert all(frozen(snapshot) == then for snapshot, then in seen)
    assert len({id(snapshot) for snapshot, _ in seen}) == len(seen)


async def test_a_process_that_is_replaced_is_shown_as_it_was(world: World) -> None:
    deployment = world.add()
    await turns()
    loading = deployment.snapshot
    world.starter.running[0].become_ready()
    await turns()
    assert [replica["status"] for replica in deployment.replicas] == ["READY"]
    assert not loading.ready and deployment.snapshot.ready
