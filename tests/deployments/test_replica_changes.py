"""Replicas that are added, removed and lost while a deployment runs. No process, no sleep."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from tests.deployments.doubles import World, inbox_of, turns, wanted
from tests.deployments.steps import large, launched, statuses
from xinference.deployments import supervision, views
from xinference.deployments.messages import (
    ReplicaDrained,
)
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.errors import Problem
from xinference.process.command import Exit, Fault
from xinference.process.snapshot import ReplicaState
from xinference.routing.table import Crash


async def test_two_adds_at_once_get_two_numbers_and_two_rows(world: World) -> None:
    deployment = await launched(world)
    numbers = await asyncio.gather(deployment.add_replica(), deployment.add_replica())
    assert sorted(numbers) == [1, 2]
    assert wanted(world.store) == 3 and statuses(deployment) == ["READY"] * 3


async def test_the_row_is_written_before_the_reply(world: World) -> None:
    deployment = await launched(world)
    world.starter.instant = False
    assert await deployment.add_replica(wait_ready=False) == 1
    assert wanted(world.store) == 2 and statuses(deployment) == ["READY", "LOADING"]
    removing = asyncio.create_task(deployment.remove_replica(1))
    await turns()
    assert wanted(world.store) == 1
    assert await removing == 1


async def test_an_added_replica_whose_first_start_fails_is_taken_back_and_the_row_is_as_before(world: World) -> None:
    deployment = await launched(world)
    world.starter.instant = False
    adding = asyncio.create_task(deployment.add_replica())
    await turns()
    assert wanted(world.store) == 2
    world.starter.running[1].die()
    with pytest.raises(Problem, match="exited with status 1") as failed:
        await adding
    assert failed.value.stage == "start"
    assert wanted(world.store) == 1 and statuses(deployment) == ["READY"]
    assert len(world.store.replicas("one")) == 1
    assert any("replica 1 could not be started" in content for content in world.contents())


async def test_an_added_replica_that_can_not_be_started_at_all_is_taken_back_too(world: World) -> None:
    deployment = await launched(world)
    world.starter.refusal = Problem(
        "socket_folder",
        "It is not safe.",
        status=500,
    )
    with pytest.raises(Problem, match="not safe"):
        await deployment.add_replica()
    assert wanted(world.store) == 1 and statuses(deployment) == ["READY"] and deployment.problem is None


async def test_a_replica_that_would_not_fit_is_refused_before_its_row_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = await launched(world)
    monkeypatch.setattr(world.preparation, "read_weights", large(world))
    with pytest.raises(Problem, match="needs"):
        await deployment.add_replica()
    assert wanted(world.store) == 1


async def test_the_last_replica_is_not_removed(world: World) -> None:
    deployment = await launched(world)
    with pytest.raises(Problem, match="0 is the only replica") as refused:
        await deployment.remove_replica(0)
    assert refused.value.code == "last_replica"
    with pytest.raises(Problem, match="has no replica 7"):
        await deployment.remove_replica(7)
    assert wanted(world.store) == 1


async def test_a_removed_replica_leaves_the_routes_at_once_and_ends_after_its_last_answer(world: World) -> None:
    deployment = await launched(world, replica=2)
    first, second = world.starter.running
    world.load.settles = 0
    removing = asyncio.create_task(deployment.remove_replica(0))
    await turns()
    assert [target.replica_id for target in deployment.route.targets] == [second.snapshot.replica_id]
    assert statuses(deployment) == ["TERMINATING", "READY"]
    assert not first.stopped and not removing.done()
    world.load.settle_all()
    assert await removing == 1
    assert first.stopped and world.load.forgotten == [first.snapshot.replica_id]


async def test_a_replica_is_added_while_another_is_removed_and_gets_a_number_of_its_own(world: World) -> None:
    deployment = await launched(world, replica=2)
    world.load.settles = 0
    removing = asyncio.create_task(deployment.remove_replica(0))
    await turns()
    with pytest.raises(Problem, match="1 is the only replica"):
        await deployment.remove_replica(1)
    with pytest.raises(Problem, match="has no replica 0"):
        await deployment.remove_replica(0)
    assert await deployment.add_replica() == 2
    world.load.settle_all()
    assert await removing == 1
    assert [replica["replica_id"] for replica in deployment.replicas] == [1, 2]


async def test_an_answer_that_takes_too_long_does_not_keep_a_removed_replica(world: World) -> None:
    deployment = await launched(world, replica=2)
    world.load.settles = 0
    removing = asyncio.create_task(deployment.remove_replica(0))
    await turns()
    (first, _) = world.starter.running
    inbox_of(deployment).put(ReplicaDrained(0, first, in_time=False))
    assert await removing == 1
    assert any("with answers on their way" in content for content in world.contents())


async def test_a_replica_is_removed_while_it_starts_and_whoever_waits_is_told(world: World) -> None:
    deployment = await launched(world)
    world.starter.instant = False
    adding = asyncio.create_task(deployment.add_replica())
    await turns()
    assert await deployment.remove_replica(1) == 1
    with pytest.raises(Problem, match="stopped before it was ready"):
        await adding
    assert wanted(world.store) == 1 and statuses(deployment) == ["READY"]


async def test_a_removed_replica_that_dies_meanwhile_is_not_started_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "COUNT_SECONDS", 0.01)
    deployment = await launched(world, replica=2)
    world.load.settles = 0
    removing = asyncio.create_task(deployment.remove_replica(1))
    await turns()
    world.starter.running[1].die()
    assert await removing == 1
    await turns()
    assert len(world.starter.running) == 1 and statuses(deployment) == ["READY"]


async def test_a_replica_that_keeps_dying_is_given_up_and_the_others_go_on(world: World) -> None:
    deployment = await launched(world, replica=2)
    world.starter.instant = False
    for _ in range(2):
        world.starter.running[-1].die()
        await turns()
    assert statuses(deployment) == ["READY", "ERROR"]
    assert "not started again" in deployment.replicas[1]["error_message"]
    assert deployment.problem is None and len(deployment.route.targets) == 1


async def test_when_the_healthy_replica_goes_the_lost_one_decides(world: World) -> None:
    deployment = await launched(world, replica=2)
    world.starter.instant = False
    for _ in range(2):
        world.starter.running[-1].die()
        await turns()
    assert await deployment.remove_replica(0) == 1
    await turns()
    assert deployment.problem is not None and deployment.problem.code == "engine_keeps_dying"
    with pytest.raises(Problem, match="is not running"):
        await deployment.add_replica()


async def test_the_last_replica_that_is_given_up_fails_the_deployment(world: World) -> None:
    deployment = await launched(world)
    world.starter.instant = False
    for _ in range(2):
        world.starter.running[-1].die()
        await turns()
    assert deployment.problem is not None and deployment.problem.code == "engine_keeps_dying"
    assert (await_row := world.store.deployments()[0].problem) is not None and await_row.code == "engine_keeps_dying"


@pytest.mark.parametrize("ended", [False, True])
async def test_ends_with_requests_in_flight_count_for_no_limit(world: World, ended: bool) -> None:
    deployment = await launched(world)
    for _ in range(10):
        replica = world.starter.running[0]
        name = replica.snapshot.replica_id
        world.load.counts = {} if ended else {name: 1}
        world.load.ended = {name: time.monotonic()} if ended else {}
        replica.die()
        await turns()
    assert deployment.problem is None and len(deployment.route.targets) == 1
    world.load.counts, world.load.ended = {}, {}
    world.starter.instant = False
    for _ in range(2):
        world.starter.running[-1].die()
        await turns()
    assert deployment.problem is not None and deployment.problem.code == "engine_keeps_dying"


async def test_a_request_that_ended_long_before_an_exit_did_not_cause_it(world: World) -> None:
    deployment = await launched(world)
    for _ in range(2):
        replica = world.starter.running[-1]
        world.load.ended = {replica.snapshot.replica_id: time.monotonic() - 10}
        replica.die()
        await turns()
    assert deployment.problem is not None and deployment.problem.code == "engine_keeps_dying"


async def test_the_route_names_the_replicas_whose_engines_crashed(world: World) -> None:
    deployment = await launched(world)
    first = world.starter.running[0]
    first.die(Exit(None, "SIGKILL", (), 1.0, fault=Fault.HUNG, detail="answered no probe"))
    crash = Crash(first.snapshot.replica_id, "engine_hung")
    for published in world.published:  # in no table is it gone without its reason
        route = views.route(published["one"], LlamaCpp())
        ids = {target.replica_id for target in route.targets}
        assert not published["one"].ready or first.snapshot.replica_id in ids or route.crashes == (crash,)
    await turns()
    assert deployment.route.crashes == (crash,)
    assert "answered no probe" in world.contents()[-3]
    await deployment.remove_replica(await deployment.add_replica())
    assert deployment.route.crashes == (crash,), "a requested end is no crash"


async def test_an_engine_that_is_being_killed_has_crashed(world: World) -> None:
    deployment = await launched(world)
    replica = world.starter.running[0]
    replica.snapshot = replace(replica.snapshot, fault=Fault.HUNG)
    replica._show(ReplicaState.STOPPING)
    await turns()
    assert (deployment.route.targets, deployment.route.crashes) == (
        (),
        (Crash(replica.snapshot.replica_id, "engine_hung"),),
    )


async def test_whoever_asks_for_a_replica_and_leaves_does_not_stop_it(world: World) -> None:
    deployment = await launched(world)
    world.starter.instant = False
    adding = asyncio.create_task(deployment.add_replica())
    await turns()
    adding.cancel()
    await turns()
    world.starter.running[1].become_ready()
    await turns()
    assert statuses(deployment) == ["READY", "READY"] and deployment.problem is None
