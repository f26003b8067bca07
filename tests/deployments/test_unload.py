"""A user unloads a model: the engine ends after its answers, the row stays, and nothing starts until it is loaded."""

from __future__ import annotations

import asyncio

import pytest

from tests.deployments.doubles import DIED, World, inbox_of, launch_of, turns
from tests.deployments.steps import launched
from xinference.deployments.deployment import Deployment
from xinference.deployments.messages import RestartDue
from xinference.deployments.snapshot import Status
from xinference.errors import Problem


async def begun(deployment: Deployment, *, for_restart: bool = False) -> asyncio.Task[None]:
    """An unload that has begun."""
    task = asyncio.create_task(deployment.unload(for_restart=for_restart))
    await turns()
    return task


def replacing(world: World, *, unloaded: bool = False, restarting: bool = False) -> Deployment:
    """A deployment of an earlier one's row."""
    return Deployment(
        launch_of("one"), world.context, 0.0, starter=world.starter, preparation=world.preparation, ran=True,
        unloaded=unloaded, restarting=restarting,
    )  # fmt: skip


async def test_the_engine_ends_after_its_answers_and_the_memory_is_released(world: World) -> None:
    deployment = await launched(world)
    (replica,) = world.starter.running
    world.load.counts[replica.snapshot.replica_id] = 1
    unloading = await begun(deployment)
    assert not replica.stopped and deployment.status is Status.UNLOADING
    assert deployment.route.targets == () and deployment.route.unloaded and not deployment.route.recovering
    world.load.counts.clear()
    await unloading
    assert replica.stopped and world.ledger == {} and deployment.status is Status.UNLOADED
    (row,) = world.store.deployments()
    assert row.unloaded and row.problem is None and row.wanted
    assert world.store.replicas("one") == [] and deployment.instance["replicas"][0]["status"] == "UNLOADED"


@pytest.mark.parametrize("world", [{"drain_seconds": 0.0}], indirect=True)
async def test_it_does_not_wait_longer_than_the_drain_time(world: World) -> None:
    deployment = await launched(world)
    (replica,) = world.starter.running
    world.load.counts[replica.snapshot.replica_id] = 1
    await deployment.unload()
    assert replica.stopped and deployment.status is Status.UNLOADED


async def test_a_second_unload_waits_for_the_same_end_and_a_third_has_nothing_to_do(world: World) -> None:
    deployment = await launched(world)
    (replica,) = world.starter.running
    world.load.counts[replica.snapshot.replica_id] = 1
    first, second = await begun(deployment), await begun(deployment)
    assert not first.done() and not second.done()
    world.load.counts.clear()
    await asyncio.gather(first, second)
    await deployment.unload()
    assert deployment.problem is None


async def test_an_engine_that_dies_meanwhile_is_not_started_again(world: World) -> None:
    deployment = await launched(world, replica=2)
    dying, busy = world.starter.running
    world.load.counts[busy.snapshot.replica_id] = 1
    unloading = await begun(deployment)
    dying.die(DIED)
    inbox_of(deployment).put(RestartDue(0))
    await turns()
    assert world.starter.running == [busy]
    world.load.counts.clear()
    await unloading
    assert world.starter.running == [] and deployment.status is Status.UNLOADED and deployment.problem is None


async def test_replicas_of_an_unloaded_model_can_not_be_changed(world: World) -> None:
    deployment = await launched(world, replica=2)
    await deployment.unload()
    for change in (deployment.add_replica(), deployment.remove_replica(0)):
        with pytest.raises(Problem) as refused:
            await change
        assert refused.value.code == "not_running"


async def test_a_model_that_is_being_loaded_is_not_unloaded(world: World) -> None:
    deployment = world.add()
    await turns()
    with pytest.raises(Problem, match="is not loaded") as refused:
        await deployment.unload()
    assert refused.value.code == "not_running" and len(world.starter.running) == 1


async def test_requests_wait_while_it_is_restarted_and_nothing_is_stored(world: World) -> None:
    deployment = await launched(world)
    (replica,) = world.starter.running
    world.load.counts[replica.snapshot.replica_id] = 1
    unloading = await begun(deployment, for_restart=True)
    assert deployment.route.recovering and not deployment.route.unloaded and deployment.route.targets == ()
    world.load.counts.clear()
    await unloading
    assert deployment.route.recovering and not world.store.deployments()[0].unloaded
    await deployment.end("terminate")
    assert deployment.route.recovering, "the deployment that replaces it is not there yet"


async def test_the_deployment_that_replaces_it_lets_requests_wait_until_it_is_ready(world: World) -> None:
    world.starter.instant = True
    world.store.add_deployment("one", "{}")
    world.deployments["one"] = deployment = replacing(world, restarting=True)
    assert deployment.route.recovering and deployment.launching
    deployment.begin()
    await turns()
    assert deployment.ready and not deployment.snapshot.restarting and not deployment.launching


async def test_an_on_demand_model_is_unloaded_at_once_and_loaded_by_its_next_request(world: World) -> None:
    world.starter.instant = True
    deployment = world.add(on_demand=True)
    await turns()
    with deployment.wait("one"):
        await turns()
    assert deployment.ready
    await deployment.unload()
    assert deployment.status is Status.UNLOADED and world.starter.running == [] and not deployment.route.unloaded
    assert not world.store.deployments()[0].unloaded
    with deployment.wait("one"):
        await turns()
    assert deployment.ready


async def test_a_later_server_keeps_it_unloaded_and_ends_an_engine_that_still_runs(world: World) -> None:
    world.store.add_deployment("one", "{}")
    world.store.add_replica("left", "one", 0)
    world.starter.left["left"] = {}
    deployment = world.deployments["one"] = replacing(world, unloaded=True)
    deployment.begin()
    await turns()
    assert deployment.status is Status.UNLOADED and not deployment.launching
    assert world.starter.running == [] and world.preparation.calls == []
    assert world.store.replicas("one") == [] and "one" not in world.ledger
