"""A replica whose node is lost is started on another one, and the loss is no fault of the model."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from tests.deployments.doubles import HOST, SHAPE, World, launch_of, running_world, sized_plan, turns
from xinference.deployments import relocation
from xinference.deployments.context import NodesView
from xinference.deployments.deployment import Deployment
from xinference.deployments.preparation import Runnable, Weights
from xinference.deployments.snapshot import Status
from xinference.deployments.views import replica_entries
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.model_shape import ModelShape
from xinference.launch.place import Place
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.occupancy import footprint
from xinference.process.command import Exit, Fault

LEFT = Exit(0, None, (), 5.0, requested=True, fault=Fault.NODE_LEFT, detail="was stopped, because its worker ends")
LOST = Exit(None, None, (), 0.0, fault=Fault.NODE_LOST, detail="is gone")
NO_ROOM = Problem(Code.NO_NODE, "No node has room.")


class OneNodeEach:
    """A `NodePlacer` that puts all replicas on the first usable node."""

    def __init__(self, *usable: str) -> None:
        self.usable = list(usable)

    def check(self, request: LaunchRequest) -> None:
        """Any request may be placed."""

    def takes(self, launch: LaunchPlan) -> bool:
        return True

    def is_usable(self, node_id: str) -> bool:
        return node_id in self.usable

    def allowed(self, request: LaunchRequest) -> list[str]:
        return self.usable

    async def view(self, launch: ResolvedLaunch) -> NodesView:
        return NodesView(dict.fromkeys(self.usable, HOST), {})

    def now(self, view: NodesView) -> NodesView:
        return NodesView(dict.fromkeys(self.usable, HOST), view.with_weights)

    def best(self, view: NodesView, request: LaunchRequest) -> str:
        return self.usable[0]

    def size(
        self, launch: ResolvedLaunch, path: Path, shape: ModelShape, notes: tuple[str, ...], view: NodesView
    ) -> SizedPlan:
        if not self.usable:
            raise NO_ROOM
        places = (Place(self.usable[0]),) * launch.request.replica
        return SizedPlan(launch, path, sized_plan("one").sizing, places)


def _launch(world: World, placer: OneNodeEach, replica: int = 1, *, on_demand: bool = False) -> Deployment:
    """A deployment on nodes."""
    world.context = dataclasses.replace(world.context, placer=placer)

    async def read_weights(launch: ResolvedLaunch, path: Path | None = None) -> Weights:
        return Weights(Path("weights"), SHAPE, (), HOST, await placer.view(launch))

    async def prepare_node(plan: SizedPlan, node_id: str) -> None:
        world.preparation.prepared[node_id] = Runnable(Path("weights"), Path("python"))

    world.preparation.read_weights = read_weights  # type: ignore[method-assign]  # the world is that of one test
    world.preparation.prepare_node = prepare_node  # type: ignore[method-assign]  # the world is that of one test
    world.starter.instant = True
    return world.add(replica=replica, on_demand=on_demand)


def _nodes(deployment: Deployment) -> list[str]:
    plan = deployment.plan
    assert isinstance(plan, SizedPlan)
    return [plan.place_of(number).node_id for number in range(plan.request.replica)]


async def _until_running(world: World, count: int) -> None:
    for _ in range(50):
        await turns()
        if len(world.starter.running) == count and all(each.snapshot.exit is None for each in world.starter.running):
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{len(world.starter.running)} replicas run")


async def test_a_replica_of_a_lost_node_is_started_on_another_one_without_a_limit(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        placer = OneNodeEach("n1")
        deployment = _launch(world, placer)
        await _until_running(world, 1)
        assert _nodes(deployment) == ["n1"] and deployment.ready
        for node in ("n2", "n3", "n4", "n5", "n6", "n7"):  # more often than a model may crash
            placer.usable = [node]
            world.starter.running[0].die(LOST)
            await _until_running(world, 1)
            assert _nodes(deployment) == [node]
        assert deployment.problem is None and deployment.status is Status.READY
        assert deployment.snapshot.crashes == (), "no request is suspected"


async def test_replicas_of_a_worker_that_ends_are_started_on_another_node_and_the_events_say_why(
    tmp_path: Path,
) -> None:
    async with running_world(tmp_path) as world:
        placer = OneNodeEach("n1")
        deployment = _launch(world, placer)
        await _until_running(world, 1)
        for node in ("n2", "n3", "n4", "n5", "n6", "n7"):  # more often than a model may crash
            placer.usable = [node]
            world.starter.running[0].die(LEFT)
            await _until_running(world, 1)
            assert _nodes(deployment) == [node]
        assert deployment.problem is None and deployment.snapshot.crashes == ()
        why = "The engine of one was stopped, because its worker ends. It is started again where there is room."
        assert why in world.contents()


async def test_the_memory_of_the_new_place_is_reserved(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        placer = OneNodeEach("n1")
        _launch(world, placer)
        await _until_running(world, 1)
        placer.usable = ["n2"]
        world.starter.running[0].die(LOST)
        await _until_running(world, 1)
        assert world.ledger["one"].places == (Place("n2"),)
        other = launch_of("other")
        reserved = {node: world.admission.occupancy_on(node, other) for node in ("n1", "n2")}
        assert [reserved[node].host_outstanding for node in ("n1", "n2")] == [
            0,
            footprint(world.ledger["one"], "n2").later_bytes,
        ]
        assert footprint(world.ledger["one"]).reserved == {}, "nothing on the supervisor's own machine"


async def test_a_replica_without_room_waits_and_says_why_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relocation, "RETRY_SECONDS", 0.0)
    async with running_world(tmp_path) as world:
        placer = OneNodeEach("n1")
        deployment = _launch(world, placer)
        await _until_running(world, 1)
        placer.usable = []
        world.starter.running[0].die(LOST)
        for _ in range(20):
            await turns()
            await asyncio.sleep(0)
        assert deployment.status is Status.RECOVERING and deployment.problem is None
        assert len([text for text in world.contents() if "No node has room" in text]) == 1
        placer.usable = ["n2"]
        await _until_running(world, 1)
        assert _nodes(deployment) == ["n2"]


async def test_the_entry_of_a_replica_says_why_it_waits_until_it_has_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relocation, "RETRY_SECONDS", 0.0)
    async with running_world(tmp_path) as world:
        placer = OneNodeEach("n1")
        deployment = _launch(world, placer)
        await _until_running(world, 1)
        placer.usable = []
        world.starter.running[0].die(LEFT)
        while (entry := replica_entries(deployment.snapshot)[0])["error_message"] is None:
            await asyncio.sleep(0)
        assert (entry["status"], entry["error_message"]) == (Status.RECOVERING, "waits: No node has room.")
        placer.usable = ["n2"]
        await _until_running(world, 1)
        assert replica_entries(deployment.snapshot)[0]["error_message"] is None


async def test_a_launch_whose_node_is_lost_before_it_is_ready_goes_on_elsewhere(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        placer = OneNodeEach("n1")
        deployment = _launch(world, placer)
        world.starter.instant = False
        await _until_running(world, 1)
        placer.usable = ["n2"]
        world.starter.running[0].die(LOST, Problem(Code.NODE_GONE, "The node n1 is lost."))
        await _until_running(world, 1)
        assert _nodes(deployment) == ["n2"] and deployment.problem is None


async def test_a_model_on_demand_is_loaded_where_there_is_room_at_each_load(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        placer = OneNodeEach("n1")
        deployment = _launch(world, placer, on_demand=True)
        for node in ("n1", "n2"):
            placer.usable = [node]
            with deployment.wait("one"):
                await _until_running(world, 1)
            assert _nodes(deployment) == [node]
            assert footprint(world.ledger["one"]).reserved == {}, "nothing on the supervisor's own machine"
            await deployment.unload()
