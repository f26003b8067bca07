"""Deployments that an earlier server left: their replicas are adopted, started or ended. No process, no sleep."""

from __future__ import annotations

import msgspec
import pytest

from tests.deployments.doubles import SIZING, World, turns
from tests.deployments.steps import leave_running, statuses
from xinference.deployments.snapshot import Status
from xinference.error_codes import Code
from xinference.errors import Problem


async def test_a_running_replica_is_taken_back_with_its_size_and_needs_no_preparation(world: World) -> None:
    leave_running(world)
    deployment = world.add()
    assert deployment.route.recovering and not deployment.launching
    await turns()
    assert deployment.ready and deployment.snapshot.sized is not None
    assert deployment.snapshot.sized.sizing == msgspec.structs.replace(SIZING, reasons=())
    assert world.preparation.calls == [] and world.starter.numbers == []
    assert world.ledger.keys() == {"one"}


async def test_the_replicas_are_known_once_the_begin_is_answered(world: World) -> None:
    leave_running(world)
    deployment = world.add(begin=False)
    assert await deployment.begin() == 1
    assert [each["replica_uid"] for each in deployment.replicas] == ["r0"]


async def test_a_failed_deployment_answers_its_begin(world: World) -> None:
    deployment = world.add(begin=False, problem=Problem(Code.ENGINE_DIED, "It died."))
    assert await deployment.begin() == 0


async def test_one_that_dies_after_it_was_taken_back_needs_an_interpreter(world: World) -> None:
    leave_running(world)
    deployment = world.add()
    await turns()
    world.starter.running[0].die()
    await turns()
    assert world.preparation.calls == ["interpreter"]
    world.starter.running[0].become_ready()
    await turns()
    assert deployment.ready


async def test_one_whose_size_is_not_known_is_not_restarted_by_guess(world: World) -> None:
    leave_running(world)
    world.starter.left["r0"] = {"of": "another release"}
    world.preparation.held.add("fetch")
    deployment = world.add()
    await turns()
    assert deployment.ready and deployment.snapshot.sized is None
    with pytest.raises(Problem, match="not running"):
        await deployment.add_replica()
    world.starter.running[0].die()
    await turns()
    assert deployment.problem is not None and "not known" in deployment.problem.cause


async def test_a_replica_whose_interpreter_is_gone_fails_the_deployment(world: World) -> None:
    leave_running(world)
    deployment = world.add()
    await turns()
    world.preparation.problems["interpreter"] = Problem(Code.ENVIRONMENT_FAILED, "It can't be built.")
    world.starter.running[0].die()
    await turns()
    assert deployment.problem is not None and deployment.problem.code == "environment_failed"


async def test_what_is_missing_beside_a_replica_that_was_taken_back_is_started(world: World) -> None:
    leave_running(world, number=1)
    deployment = world.add(replica=2)
    await turns()
    assert world.starter.numbers == [0]
    assert [replica["replica_id"] for replica in deployment.replicas] == [0, 1]


async def test_a_replica_too_many_is_ended(world: World) -> None:
    leave_running(world, number=0, replica_id="r0")
    leave_running(world, number=1, replica_id="r1")
    deployment = world.add(replica=1)
    await turns()
    assert [row.replica_id for row in world.store.replicas("one")] == ["r0"]
    assert world.starter.started[1].stopped and statuses(deployment) == ["READY"]


async def test_what_an_earlier_server_was_told_to_terminate_ends_without_being_begun(world: World) -> None:
    leave_running(world)
    deployment = world.add(begin=False)
    await deployment.end("terminate")
    (replica,) = world.starter.started
    assert replica.stopped and world.store.replicas("one") == []


async def test_one_that_failed_under_an_earlier_server_stays_failed(world: World) -> None:
    deployment = world.add(problem=Problem(Code.ENGINE_DIED, "It died."))
    await turns()
    assert deployment.status is Status.ERROR and world.preparation.calls == []
    with pytest.raises(Problem, match="not running"):
        await deployment.add_replica()
