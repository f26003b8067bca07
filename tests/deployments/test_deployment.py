"""The owner of a deployment: launches, replicas that come and go, and every way to end. No process, no sleep."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.deployments.doubles import (
    DIED,
    SIZING,
    FakeReplica,
    World,
    inbox_of,
    running_world,
    turns,
    wanted,
)
from tests.support.examples import DIVISOR
from xinference.deployments import supervision, views
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.deployments.messages import (
    Abandoned,
    Begin,
    Defect,
    Drained,
    Evict,
    Granted,
    Message,
    Placed,
    PreparationFailed,
    Prepared,
    Refused,
    ReplicaChanged,
    ReplicaDrained,
    ReplicaExited,
    ReplicaReady,
    ReplicasFailed,
    Requested,
    RestartDue,
    SetAliases,
    SetTerms,
    StageBegan,
    Unload,
    Waits,
    WeightsRead,
)
from xinference.deployments.preparation import Weights
from xinference.deployments.snapshot import DeploymentSnapshot, Stage, Status
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.place import Place
from xinference.process.command import Exit, Fault
from xinference.process.snapshot import ReplicaState
from xinference.routing.table import Crash


async def launched(world: World, **request: Any) -> Deployment:
    """A deployment whose replicas all answer."""
    world.starter.instant = True
    deployment = world.add(**request)
    await turns()
    assert deployment.ready and deployment.status is Status.READY
    return deployment


def statuses(deployment: Deployment) -> list[str]:
    return [replica["status"] for replica in deployment.replicas]


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


def large(world: World) -> Callable[..., Any]:
    given = world.preparation.read_weights

    async def read(launch: Any, path: Path | None = None) -> Weights:
        weights = await given(launch, path)
        return replace(weights, shape=msgspec.structs.replace(weights.shape, weights_bytes=1 << 40))

    return read


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


# -- taking up what an earlier server left ------------------------------------------------------------------------


def leave_running(world: World, uid: str = "one", number: int = 0, replica_id: str = "r0") -> None:
    if not world.store.deployments():
        world.store.add_deployment(uid, "{}")
    world.store.add_replica(replica_id, uid, number)
    sizing = msgspec.structs.asdict(SIZING)
    world.starter.left[replica_id] = {"uid": uid, "path": "w", "sizing": sizing, "devices": []}


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


# -- replicas that come and go ------------------------------------------------------------------------------------


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


# -- every message at every time ----------------------------------------------------------------------------------


async def _nothing(world: World) -> Deployment:
    return world.add(begin=False)


async def _fetches(world: World) -> Deployment:
    world.preparation.held.add("fetch")
    return world.add()


async def _installs(world: World) -> Deployment:
    world.preparation.held.add("environment")
    return world.add()


async def _starts(world: World) -> Deployment:
    return world.add()


async def _is_ready(world: World) -> Deployment:
    return await launched(world)


async def _restarts(world: World) -> Deployment:
    deployment = await launched(world)
    world.starter.instant = False
    world.starter.running[0].die()
    return deployment


async def _has_failed(world: World) -> Deployment:
    world.preparation.problems["fetch"] = Problem(
        "gone",
        "It is gone.",
        status=502,
    )
    return world.add()


async def _is_unloaded(world: World) -> Deployment:
    return world.add(on_demand=True)


async def _is_queued(world: World) -> Deployment:
    world.load.settles = 0
    return await _asked(world)


async def _loads(world: World) -> Deployment:
    return await _asked(world)


async def _is_loaded(world: World) -> Deployment:
    world.starter.instant = True
    return await _asked(world)


async def _drains(world: World) -> Deployment:
    deployment = await _is_loaded(world)
    world.load.settles = 1
    deployment.evict("for a test", only_idle=False)
    return deployment


async def _asked(world: World) -> Deployment:
    deployment = world.add(on_demand=True)
    await turns()
    with deployment.wait("one"):
        await turns()
    return deployment


TIMES: list[Callable[[World], Any]] = [
    *(_nothing, _fetches, _installs, _starts, _is_ready, _restarts, _has_failed),
    *(_is_unloaded, _is_queued, _loads, _is_loaded, _drains),
]


def stale(world: World) -> FakeReplica:
    """A process that is no replica's any more."""
    return FakeReplica("stale", lambda: None)


MESSAGES: dict[str, Callable[[World, Deployment], Message]] = {
    "StageBegan": lambda w, d: StageBegan(Stage.FETCH, "fetching"),
    "Refused": lambda w, d: Refused(Problem(Code.NO_ROOM, "There is no room.")),
    "Requested": lambda w, d: Requested(d.snapshot.refusals),
    "Requested, told": lambda w, d: Requested(-1),
    "Abandoned": lambda w, d: Abandoned(),
    "Evict, idle": lambda w, d: Evict("for a test", only_idle=True),
    "Evict": lambda w, d: Evict("for a test", only_idle=False),
    "Drained": lambda w, d: Drained(),
    "ReplicaChanged": lambda w, d: ReplicaChanged(),
    "ReplicaReady": lambda w, d: ReplicaReady(0, stale(w), None),
    "ReplicaExited": lambda w, d: ReplicaExited(0, stale(w), DIED),
    "RestartDue": lambda w, d: RestartDue(0, Path("python")),
    "Waits": lambda w, d: Waits(0, Problem(Code.NO_NODE, "No node has room.")),
    "Placed": lambda w, d: Placed(0, Place()),
    "ReplicaDrained": lambda w, d: ReplicaDrained(0, stale(w), in_time=True),
    "PreparationFailed": lambda w, d: PreparationFailed(
        Problem(
            "gone",
            "It is gone.",
            status=502,
        )
    ),
    "ReplicasFailed": lambda w, d: ReplicasFailed(Problem(Code.ENGINE_DIED, "It died.")),
    "SetAliases": lambda w, d: SetAliases(("other",), asyncio.get_running_loop().create_future()),
    "SetTerms": lambda w, d: SetTerms({"pin": True}, asyncio.get_running_loop().create_future()),
    "Unload": lambda w, d: Unload(asyncio.get_running_loop().create_future()),
    "Unload for a restart": lambda w, d: Unload(asyncio.get_running_loop().create_future(), for_restart=True),
    "Defect": lambda w, d: Defect(KeyError("x")),
}


@pytest.mark.parametrize("time", TIMES, ids=lambda time: time.__name__.strip("_"))
async def test_every_message_at_every_time_is_handled_or_ignored_and_the_owner_goes_on(
    tmp_path: Path, time: Callable[[World], Any]
) -> None:
    failures: list[Exception] = []
    # Where examples are divided, each time gets others.
    for name in islice(MESSAGES, TIMES.index(time) % DIVISOR, None, DIVISOR):
        try:
            async with running_world(tmp_path / name) as world:
                await _is_handled_or_ignored(world, time, name)
        except Exception as error:  # noqa: BLE001 -- all of them are raised below
            error.add_note(f"the message: {name}")
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(MESSAGES)} messages", failures)


async def _is_handled_or_ignored(world: World, time: Callable[[World], Any], name: str) -> None:
    deployment: Deployment = await time(world)
    await turns()
    before = deployment.snapshot
    inbox_of(deployment).put(MESSAGES[name](world, deployment))
    await turns()
    after = deployment.snapshot
    # None of these messages is a defect of ours, whenever it comes.
    assert name == "Defect" or after.problem is None or after.problem.code != "internal_error"
    if before.problem is not None or (name.startswith("Replica") and name != "ReplicasFailed"):
        assert (after.status, after.problem, after.residency) == (before.status, before.problem, before.residency)
    world.load.settle_all()
    world.preparation.release()
    async with asyncio.timeout(30):
        await deployment.end("terminate")
    assert world.starter.running == [] and world.store.replicas("one") == []
    assert world.ledger == {} and world.queue == []


def test_every_message_is_tested() -> None:
    from xinference.deployments import messages

    # Those that only the owner's own helpers send, once, are part of every launch above.
    elsewhere = {Begin, WeightsRead, Prepared, Granted, messages.AddReplica, messages.RemoveReplica, messages.End}
    names = {kind.__name__ for kind in messages.Message.__args__ if kind not in elsewhere}
    assert names == {re.split(",| for", name)[0] for name in MESSAGES}


# -- one that can't be taken up -----------------------------------------------------------------------------------


async def test_a_broken_row_is_shown_with_its_reason_and_can_be_ended() -> None:
    broken = BrokenDeployment("one", Problem(Code.UNREADABLE_ROW, "It can't be read."), 5.0)
    assert broken.instance["problem"]["code"] == "unreadable_row"
    assert (broken.description["status"], broken.description["stage"]) == ("ERROR", "failed")
    assert broken.route.problem is broken.problem and broken.progress["stage"] == "failed"
    await broken.end("terminate")
