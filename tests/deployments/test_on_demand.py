"""Models on demand: every message in every state, and what requests get of it. No process, no sleep."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.deployments.doubles import HOST, SHAPE, FakeReplica, World, inbox_of, sized_plan, turns
from tests.support.cases import check_each
from tests.support.examples import examples
from xinference.config import Settings
from xinference.deployments.deployment import Deployment
from xinference.deployments.messages import (
    Abandoned,
    AddReplica,
    Begin,
    Defect,
    Drained,
    End,
    Evict,
    Granted,
    Message,
    Placed,
    PreparationFailed,
    Prepared,
    Refused,
    RemoveReplica,
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
from xinference.deployments.on_demand import Action, DemandCounter, next_residency, terms_of
from xinference.deployments.preparation import Runnable, Weights
from xinference.deployments.snapshot import Residency, Stage, Status
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.place import Place
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store
from xinference.units import MIB

UNLOADED, QUEUED, LOADING, LOADED, DRAINING = Residency
NO_ROOM = Problem(Code.NO_ROOM, "There is no room.")
NOBODY = Problem(Code.NOBODY_WAITS, "Nobody waits.")

# -- the table ----------------------------------------------------------------------------------------------------

_FUTURE: Any = None
_REPLICA: Any = None
EVERY_MESSAGE: dict[str, Message] = {
    "begin": Begin(_FUTURE),
    "stage": StageBegan(Stage.FETCH),
    "weights": WeightsRead(Weights(Path("w"), SHAPE, (), HOST)),
    "prepared": Prepared(Runnable(Path("w"), Path("python"))),
    "preparation failed": PreparationFailed(NO_ROOM),
    "granted": Granted(sized_plan("m")),
    "refused": Refused(NO_ROOM),
    "nobody waits": Refused(NOBODY),
    "requested": Requested(0),
    "abandoned": Abandoned(),
    "evict": Evict("why", only_idle=False),
    "evict idle": Evict("why", only_idle=True),
    "drained": Drained(),
    "replica changed": ReplicaChanged(),
    "replica ready": ReplicaReady(0, _REPLICA, None),
    "replica exited": ReplicaExited(0, _REPLICA, None),
    "restart": RestartDue(0),
    "waits": Waits(0, NO_ROOM),
    "placed": Placed(0, Place()),
    "replica drained": ReplicaDrained(0, _REPLICA, in_time=True),
    "replicas failed": ReplicasFailed(NO_ROOM),
    "add": AddReplica((), _FUTURE, _FUTURE),
    "remove": RemoveReplica(0, _FUTURE),
    "unload": Unload(_FUTURE),
    "aliases": SetAliases((), _FUTURE),
    "terms": SetTerms({}, _FUTURE),
    "defect": Defect(KeyError("x")),
    "end": End("terminate"),
}
#: (state, message, requests that wait) -> (state, action). What is not here changes nothing.
TABLE: dict[tuple[Residency, str, int], tuple[Residency, Action]] = {
    (UNLOADED, "requested", 1): (QUEUED, Action.LOAD),
    (UNLOADED, "prepared", 1): (QUEUED, Action.LOAD),
    (UNLOADED, "preparation failed", 0): (UNLOADED, Action.REFUSE),
    (UNLOADED, "preparation failed", 1): (UNLOADED, Action.REFUSE),
    (UNLOADED, "granted", 0): (UNLOADED, Action.RELEASE),
    (UNLOADED, "granted", 1): (UNLOADED, Action.RELEASE),
    (UNLOADED, "evict", 0): (UNLOADED, Action.DECLINE),
    (UNLOADED, "evict", 1): (UNLOADED, Action.DECLINE),
    (UNLOADED, "evict idle", 0): (UNLOADED, Action.DECLINE),
    (UNLOADED, "evict idle", 1): (UNLOADED, Action.DECLINE),
    (QUEUED, "prepared", 0): (UNLOADED, Action.SHOW_UNLOADED),
    (QUEUED, "prepared", 1): (QUEUED, Action.LOAD),
    (QUEUED, "abandoned", 0): (QUEUED, Action.WITHDRAW),
    (QUEUED, "granted", 0): (LOADING, Action.START),
    (QUEUED, "granted", 1): (LOADING, Action.START),
    (QUEUED, "nobody waits", 0): (UNLOADED, Action.SHOW_UNLOADED),
    (QUEUED, "nobody waits", 1): (QUEUED, Action.LOAD),
    (QUEUED, "refused", 0): (UNLOADED, Action.REFUSE),
    (QUEUED, "refused", 1): (UNLOADED, Action.REFUSE),
    (QUEUED, "preparation failed", 0): (UNLOADED, Action.REFUSE),
    (QUEUED, "preparation failed", 1): (UNLOADED, Action.REFUSE),
    (QUEUED, "evict", 0): (QUEUED, Action.DECLINE),
    (QUEUED, "evict", 1): (QUEUED, Action.DECLINE),
    (QUEUED, "evict idle", 0): (QUEUED, Action.DECLINE),
    (QUEUED, "evict idle", 1): (QUEUED, Action.DECLINE),
    (LOADING, "replica ready", 0): (LOADED, Action.NONE),
    (LOADING, "replica ready", 1): (LOADED, Action.NONE),
    (LOADING, "replicas failed", 0): (UNLOADED, Action.REFUSE),
    (LOADING, "replicas failed", 1): (UNLOADED, Action.REFUSE),
    (LOADING, "preparation failed", 0): (UNLOADED, Action.REFUSE),
    (LOADING, "preparation failed", 1): (UNLOADED, Action.REFUSE),
    (LOADING, "evict", 0): (LOADING, Action.DECLINE),
    (LOADING, "evict", 1): (LOADING, Action.DECLINE),
    (LOADING, "evict idle", 0): (LOADING, Action.DECLINE),
    (LOADING, "evict idle", 1): (LOADING, Action.DECLINE),
    (LOADED, "evict", 0): (DRAINING, Action.DRAIN),
    (LOADED, "evict", 1): (DRAINING, Action.DRAIN),
    (LOADED, "evict idle", 0): (DRAINING, Action.DRAIN),
    (LOADED, "evict idle", 1): (LOADED, Action.DECLINE),
    (LOADED, "replicas failed", 0): (UNLOADED, Action.REFUSE),
    (LOADED, "replicas failed", 1): (UNLOADED, Action.REFUSE),
    (LOADED, "preparation failed", 0): (UNLOADED, Action.REFUSE),
    (LOADED, "preparation failed", 1): (UNLOADED, Action.REFUSE),
    (DRAINING, "drained", 0): (UNLOADED, Action.UNLOAD),
    (DRAINING, "drained", 1): (QUEUED, Action.RELOAD),
}


@pytest.mark.parametrize("state", Residency)
def test_every_message_in_every_state(state: Residency) -> None:
    def check(case: tuple[str, int]) -> None:
        name, waiting = case
        expected = TABLE.get((state, name, waiting), (state, Action.NONE))
        assert next_residency(state, EVERY_MESSAGE[name], waiting) == expected

    check_each(itertools.product(EVERY_MESSAGE, (0, 1)), check)


def test_the_table_has_every_message() -> None:
    assert {type(message) for message in EVERY_MESSAGE.values()} == set(Message.__args__)


def test_memory_is_asked_for_by_who_has_none_and_given_back_by_who_has_some() -> None:
    for (before, _, _), (after, action) in TABLE.items():
        if action in (Action.LOAD, Action.RELOAD):
            assert after is QUEUED
        if before.holds_memory and not after.holds_memory:
            assert action in (Action.UNLOAD, Action.RELOAD, Action.REFUSE)
        if not before.holds_memory and after.holds_memory:
            assert action is Action.START


# -- those who wait -----------------------------------------------------------------------------------------------


def test_more_than_may_wait_are_refused() -> None:
    gone: list[bool] = []
    counter = DemandCounter(2, lambda: gone.append(True))
    with counter.wait("m"), counter.wait("m"):
        with pytest.raises(Problem) as refused, counter.wait("m"):
            pass
        assert (refused.value.code, refused.value.status) == ("too_many_waiting", 429)
        assert counter.waiting == 2 and gone == []
    assert counter.waiting == 0 and gone == [True]


@pytest.mark.parametrize(
    ("fields", "ttl"), [({}, 300.0), ({"pin": True}, 0.0), ({"ttl": 7.0}, 7.0), ({"pin": True, "ttl": 7.0}, 7.0)]
)
def test_the_time_to_live_is_the_launchs_or_the_settings_and_none_for_a_pinned_model(
    fields: dict[str, Any], ttl: float
) -> None:
    assert terms_of(LaunchRequest(model_name="m", **fields), Settings()).ttl == ttl


# -- loads and evictions ------------------------------------------------------------------------------------------


class Request:
    """A request that waits for a model, as the controller lets one wait."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.refused: Problem | None = None
        self.served = False
        self.task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        refusals = self.deployment.snapshot.refusals
        with self.deployment.wait(self.deployment.uid):
            while not self.deployment.route.targets:
                snapshot = self.deployment.snapshot
                if snapshot.problem is not None or snapshot.refusals != refusals:
                    self.refused = snapshot.problem or snapshot.refusal
                    return
                await asyncio.sleep(0)
            self.served = True


async def unloaded(world: World, uid: str = "one", **request: Any) -> Deployment:
    deployment = world.add(uid, on_demand=True, **request)
    await turns()
    assert (deployment.status, deployment.snapshot.residency) == (Status.UNLOADED, UNLOADED)
    return deployment


async def loaded(world: World, uid: str = "one", **request: Any) -> Deployment:
    world.starter.instant = True
    deployment = await unloaded(world, uid, **request)
    request_ = Request(deployment)
    await turns()
    assert request_.served and deployment.snapshot.residency is LOADED
    return deployment


async def test_a_launch_prepares_it_takes_no_memory_and_is_over(world: World) -> None:
    deployment = await unloaded(world)
    assert not deployment.launching and world.starter.started == []
    assert deployment.snapshot.sized is not None, "its size is known"
    assert world.ledger == {}
    assert world.contents()[-1] == "ready: the first request loads it"
    assert [replica["status"] for replica in deployment.replicas] == ["UNLOADED"]
    assert deployment.route.on_demand and deployment.description["on_demand"] is True


async def test_the_first_request_loads_it_once_for_all_who_wait(world: World) -> None:
    deployment = await unloaded(world)
    requests = [Request(deployment) for _ in range(5)]
    await turns()
    assert (deployment.snapshot.residency, len(world.starter.started)) == (LOADING, 1)
    assert [replica["status"] for replica in deployment.replicas] == ["LOADING"]
    world.starter.running[0].become_ready()
    await turns()
    assert all(request.served for request in requests) and deployment.waiting == 0
    assert deployment.status is Status.READY and world.ledger.keys() == {"one"}


async def test_a_request_during_the_preparation_loads_it_afterwards(world: World) -> None:
    world.preparation.held.add("environment")
    world.starter.instant = True
    deployment = world.add(on_demand=True)
    await turns()
    request = Request(deployment)
    await turns()
    assert deployment.launching and not request.served
    world.preparation.release()
    await turns()
    assert request.served and world.preparation.calls == ["fetch", "environment"]
    assert "ready: the first request loads it" in world.contents()


async def test_a_request_that_leaves_before_there_is_memory_gives_its_place_up(world: World) -> None:
    deployment = await unloaded(world)
    world.load.settles = 0
    request = Request(deployment)
    await turns()
    assert deployment.snapshot.residency is QUEUED
    request.task.cancel()
    await turns()
    world.load.settle_all()
    await turns()
    assert (deployment.snapshot.residency, world.starter.started) == (UNLOADED, [])
    assert world.contents()[-1] == "no request waits for the model any more"
    assert deployment.snapshot.refusals == 0


async def test_one_who_comes_after_the_last_has_left_is_served(world: World) -> None:
    deployment = await unloaded(world)
    world.load.settles, world.starter.instant = 0, True
    first = Request(deployment)
    await turns()
    first.task.cancel()
    await turns()
    second = Request(deployment)
    await turns()
    world.load.settle_all()
    await turns()
    assert second.served and second.refused is None


async def test_an_idle_model_leaves_and_gives_its_memory_back(world: World) -> None:
    deployment = await loaded(world)
    deployment.evict("idle for 5 s", only_idle=True)
    await turns()
    assert (deployment.snapshot.residency, deployment.status) == (UNLOADED, Status.UNLOADED)
    assert world.starter.running == [] and world.ledger == {}
    assert world.said()[-2:] == ["unload", "unloaded"]
    assert deployment.description["memory_used_bytes"] is None


async def test_a_model_in_use_declines_to_leave(world: World) -> None:
    deployment = await loaded(world)
    (replica_id,) = deployment.snapshot.replica_ids
    world.load.counts[replica_id] = 1
    deployment.evict("evicted for another", only_idle=True)
    await turns()
    assert deployment.snapshot.residency is LOADED and len(deployment.route.targets) == 1


async def test_a_request_between_the_decision_to_evict_and_its_handling_is_served(world: World) -> None:
    deployment = await loaded(world)
    world.load.settles = 0
    deployment.evict("evicted for another", only_idle=True)
    await turns()
    (target,) = deployment.route.targets
    world.load.counts[target.replica_id] = 1  # a request has come while the counts were waited for
    world.load.settle_all()
    await turns()
    assert deployment.route.targets == (target,) and not world.starter.running[0].stopped
    assert "unload" not in world.said()


async def test_a_model_whose_turn_is_over_leaves_after_its_last_answer(world: World) -> None:
    deployment = await loaded(world)
    (replica,) = world.starter.running
    world.load.counts[replica.snapshot.replica_id] = 1
    world.load.settles = 1
    deployment.evict("evicted for another", only_idle=False)
    await turns()
    assert (deployment.snapshot.residency, deployment.route.targets) == (DRAINING, ())
    assert deployment.status is Status.UNLOADING and not replica.stopped
    world.load.counts.clear()
    world.load.settle_all()
    await turns()
    assert replica.stopped and deployment.snapshot.residency is UNLOADED


async def test_a_request_during_the_drain_is_served_after_the_next_load(world: World) -> None:
    deployment = await loaded(world)
    (first,) = world.starter.running
    world.load.settles = 1
    deployment.evict("evicted for another", only_idle=False)
    await turns()
    request = Request(deployment)
    await turns()
    assert not request.served and deployment.snapshot.residency is DRAINING
    world.load.settle_all()
    await turns()
    assert request.served and first.stopped
    assert [target.replica_id for target in deployment.route.targets] != [first.snapshot.replica_id]


async def test_a_request_while_the_engines_end_is_served_after_the_next_load(world: World) -> None:
    deployment = await loaded(world)
    (first,) = world.starter.running
    first.stops.clear()
    deployment.evict("idle for 5 s", only_idle=True)
    await turns()
    request = Request(deployment)
    await turns()
    assert first.stopped and not request.served
    first.stops.set()
    await turns()
    assert request.served


async def test_an_engine_that_dies_during_the_drain_is_not_started_again(world: World) -> None:
    deployment = await loaded(world)
    world.load.settles = 1
    deployment.evict("evicted for another", only_idle=False)
    await turns()
    world.starter.running[0].die()
    await turns()
    assert world.starter.running == [] and "restart" not in world.said()
    world.load.settle_all()
    await turns()
    assert deployment.snapshot.residency is UNLOADED and deployment.problem is None


async def test_the_end_during_the_drain_does_not_wait_for_the_last_answer(world: World) -> None:
    deployment = await loaded(world)
    world.load.settles = 1
    deployment.evict("evicted for another", only_idle=False)
    await turns()
    await deployment.end("terminate")
    assert world.starter.running == [] and world.store.replicas("one") == []


async def test_a_load_that_fails_is_told_to_those_who_wait_and_the_next_request_tries_again(world: World) -> None:
    deployment = await unloaded(world)
    requests = [Request(deployment) for _ in range(3)]
    await turns()
    world.starter.running[0].die()
    await turns()
    assert [request.refused.code for request in requests if request.refused] == ["load_failed"] * 3
    assert deployment.snapshot.residency is UNLOADED and deployment.problem is None
    assert world.ledger == {} and len(world.starter.started) == 1
    world.starter.instant = True
    again = Request(deployment)
    await turns()
    assert again.served and again.refused is None


async def test_whoever_asks_while_a_load_fails_is_told_and_asks_for_no_further_load(world: World) -> None:
    deployment = await unloaded(world, replica=2)
    Request(deployment)
    await turns()
    first, second = world.starter.running
    second.stops.clear()
    first.die()
    await turns()
    late = Request(deployment)
    await turns()
    second.stops.set()
    await turns()
    assert late.refused is not None and deployment.snapshot.residency is UNLOADED
    assert world.said().count("room") == 0 and len(world.starter.started) == 2
    assert world.contents()[-1].startswith("not loaded: "), "nothing was begun and given up for it"


async def test_loads_that_fail_too_often_fail_the_deployment(world: World) -> None:
    deployment = await unloaded(world)
    for _ in range(world.settings.restart_limit + 1):
        assert deployment.problem is None
        Request(deployment)
        await turns()
        world.starter.running[0].die()
        await turns()
    assert deployment.problem is not None and deployment.problem.code == "engine_died"
    late = Request(deployment)
    await turns()
    assert late.refused is deployment.problem


async def test_a_stay_that_ends_well_forgives_the_failures_before_it(world: World) -> None:
    deployment = await unloaded(world)
    for _ in range(2):
        Request(deployment)
        await turns()
        world.starter.running[0].die()
        await turns()
        Request(deployment)
        await turns()
        world.starter.running[0].become_ready()
        await turns()
        deployment.evict("idle for 5 s", only_idle=True)
        await turns()
    assert deployment.problem is None


async def test_no_room_is_told_and_is_not_held_against_the_model(world: World) -> None:
    deployment = await unloaded(world)
    from dataclasses import replace

    world.host = replace(HOST, memory_available=1)
    for _ in range(world.settings.restart_limit + 2):
        request = Request(deployment)
        await turns()
        assert request.refused is not None and request.refused.status == 503
    assert deployment.problem is None and world.starter.started == []


async def test_a_preparation_that_fails_at_the_launch_fails_it(world: World) -> None:
    world.preparation.problems["fetch"] = Problem(
        "gone",
        "It is gone.",
        status=502,
    )
    deployment = world.add(on_demand=True)
    await turns()
    assert deployment.problem is not None and deployment.problem.code == "gone"


async def test_one_that_was_taken_back_is_loaded_and_is_prepared_for_its_next_load(world: World) -> None:
    world.store.add_deployment("one", "{}")
    world.store.add_replica("r0", "one", 0)
    world.starter.left["r0"] = {}
    world.starter.instant = True
    deployment = world.add(on_demand=True)
    await turns()
    assert deployment.snapshot.residency is LOADED and not deployment.launching
    assert world.preparation.calls == []
    deployment.evict("idle for 5 s", only_idle=True)
    await turns()
    request = Request(deployment)
    await turns()
    assert request.served and world.preparation.calls == ["fetch", "environment"]


async def test_a_later_preparation_that_fails_is_told_and_the_next_request_tries_again(world: World) -> None:
    world.store.add_deployment("one", "{}")
    world.store.add_replica("r0", "one", 0)
    world.starter.left["r0"] = {}
    world.starter.instant = True
    deployment = world.add(on_demand=True)
    await turns()
    deployment.evict("idle for 5 s", only_idle=True)
    await turns()
    world.preparation.problems["fetch"] = Problem(
        "gone",
        "It is gone.",
        status=502,
    )
    failed = Request(deployment)
    await turns()
    assert failed.refused is not None and deployment.problem is None
    world.preparation.problems.clear()
    again = Request(deployment)
    await turns()
    assert again.served


async def test_replicas_that_were_added_are_there_at_the_next_load(world: World) -> None:
    deployment = await loaded(world)
    assert await deployment.add_replica() == 1
    deployment.evict("idle for 5 s", only_idle=True)
    await turns()
    Request(deployment)
    await turns()
    assert [replica["status"] for replica in deployment.replicas] == ["READY", "READY"]


@pytest.mark.parametrize("world", [{"model_memory": 200 * MIB}], indirect=True)
async def test_an_idle_model_leaves_for_another_which_gets_its_memory(world: World) -> None:
    first = await loaded(world, "first")
    second = await loaded(world, "second")
    assert (first.snapshot.residency, second.snapshot.residency) == (UNLOADED, LOADED)
    assert any(content.startswith("evicted for second, which needs") for content in world.contents("first"))
    assert world.ledger.keys() == {"second"}


@pytest.mark.parametrize("world", [{"model_memory": 200 * MIB}], indirect=True)
async def test_a_model_that_declines_keeps_its_memory_and_the_other_waits_for_it(world: World) -> None:
    first = await loaded(world, "first")
    second = await unloaded(world, "second")
    (target,) = first.route.targets
    world.load.settles = 1  # the admission reads the counts, and the owner waits for newer ones
    request = Request(second)
    await turns()
    world.load.counts[target.replica_id] = 1
    world.load.settle_all()
    await turns()
    assert first.route.targets == (target,) and not request.served
    world.load.counts.clear()
    world.admission.changed()
    await turns()
    assert request.served and first.snapshot.residency is UNLOADED


# -- every order of events ----------------------------------------------------------------------------------------

EVENTS = ["request", "leave", "ready", "die", "answer", "evict idle", "evict", "drained", "stop ends", "hold", "let"]


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=25))
def test_no_state_is_stuck_whatever_the_order_of_events(events: list[str]) -> None:
    asyncio.run(_live(events))


async def _live(events: list[str]) -> None:
    store = Store(Path(tempfile.mkdtemp()) / "x.db")
    world = World(store, Settings(home=Path("nowhere"), restart_backoff_seconds=0.0, restart_limit=1000))
    deciding = asyncio.create_task(world.admission.run())
    deployment = world.add(on_demand=True)
    requests: list[Request] = []
    steps: dict[str, Callable[[], object]] = {
        "request": lambda: requests.append(Request(deployment)),
        "leave": lambda: [request.task.cancel() for request in requests[:1]],
        "ready": lambda: each(world.starter.running, FakeReplica.become_ready),
        "die": lambda: each(world.starter.running, FakeReplica.die),
        "answer": lambda: world.load.counts.clear(),
        "evict idle": lambda: deployment.evict("for a test", only_idle=True),
        "evict": lambda: deployment.evict("for a test", only_idle=False),
        "drained": lambda: inbox_of(deployment).put(Drained()),
        "stop ends": lambda: each(world.starter.started, FakeReplica.let_stop),
        "hold": lambda: _hold(world),
        "let": lambda: world.load.settle_all(),
    }
    for event in events:
        steps[event]()
        for _ in range(3):
            await asyncio.sleep(0)
    # From here on engines start and end, and answers are sent: whoever asks is served.
    world.load.settle_all()
    world.load.counts.clear()
    world.starter.instant = True
    for replica in world.starter.started:
        replica.let_stop()
        if not replica.over and not replica.stopped:
            replica.become_ready()
    for _ in range(20):
        await asyncio.sleep(0)
    last = Request(deployment)
    await turns()
    if last.refused is not None:  # it asked while a load was failing, and was told
        last = Request(deployment)
        await turns()
    assert last.served, (deployment.snapshot.residency, events)
    assert all(request.task.done() for request in requests) and deployment.waiting == 0
    assert deployment.problem is None and deployment.snapshot.residency is LOADED
    assert world.ledger.keys() == {"one"}
    deployment.evict("idle for 5 s", only_idle=True)
    await turns()
    assert deployment.snapshot.residency is UNLOADED and world.starter.running == []
    await deployment.end("terminate")
    assert store.replicas("one") == []
    deciding.cancel()
    await asyncio.gather(deciding, return_exceptions=True)
    store.close()


def each(replicas: list[FakeReplica], do: Callable[[FakeReplica], None]) -> None:
    for replica in replicas:
        do(replica)


def _hold(world: World) -> None:
    world.load.settles = 0
    for replica in world.starter.running:
        replica.stops.clear()


async def test_a_process_of_an_earlier_load_is_no_replica_of_this_one(world: World) -> None:
    deployment = await loaded(world)
    old = FakeReplica("old", lambda: None)
    inbox_of(deployment).put(ReplicaExited(0, old, None))
    inbox_of(deployment).put(ReplicaReady(0, old, None))
    await turns()
    assert deployment.snapshot.residency is LOADED and len(deployment.route.targets) == 1
