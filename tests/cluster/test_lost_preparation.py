"""A launch whose worker is lost before its engine starts is prepared on another worker that it allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from tests.cluster.test_placer import FIRST, SECOND, FakeNode, Place
from tests.deployments.doubles import HOST, SHAPE, World, encoded, launch_of, running_world, turns
from tests.support.polling import until_async
from xinference.deployments import loader
from xinference.deployments.deployment import Deployment
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.fabric.fabric import Event
from xinference.hosts import LOCAL_NODE
from xinference.launch.plan import SizedPlan
from xinference.nodes.message_codec import encode
from xinference.nodes.messages import HostIs
from xinference.nodes.node import Node, WeightsHeader
from xinference.units import GIB, MIB

LOST = Problem(Code.NODE_GONE, "The node box1 is lost.")
AGAIN = "The node box1 is lost. The model is prepared again on a node that can run it now."


@dataclasses.dataclass
class Worker(FakeNode):
    """A node that prepares what it is asked for, until it ends."""

    ends: Callable[[str], None] = lambda step: None
    """Called in each step; raises the problem of a worker that has ended."""
    steps: list[str] = dataclasses.field(default_factory=list)

    async def fetch_weights(self, launch: Any, report: Any, peers: Any = None) -> Path:
        self._step("fetch")
        return Path("weights")

    async def read_header(self, launch: Any, path: Path) -> WeightsHeader:
        return WeightsHeader(SHAPE)

    async def convert_weights(self, path: Path, version: Any, report: Any) -> Path:
        return path

    async def find_or_install(self, engine: str, report: Any) -> Path:
        self._step("environment")
        return Path("python")

    def _step(self, step: str) -> None:
        self.steps.append(step)
        self.ends(step)


class Site:
    """A supervisor with two workers, of which the first has more free memory, and a launch."""

    def __init__(self, world: World) -> None:
        self.place = Place()
        self.first = Worker(FIRST, dataclasses.replace(HOST, memory_available=12 * GIB))
        self.second = Worker(SECOND)
        self.place.made.update({FIRST: self.first, SECOND: self.second})
        self._world = world
        world.starter.instant = True

    def lose(self, node_id: str) -> None:
        """The worker is out of reach for longer than a node may be."""
        member = self.place.members.get(node_id)
        member.known = member.known.with_link(is_up=False, now=self.place.now - 100.0)

    def lose_all(self) -> None:
        for node_id in (FIRST, SECOND):
            self.lose(node_id)

    def restore(self, *, ran: bool, **request: Any) -> Deployment:
        """The launch, as a server finds it that starts again."""
        return self.launch(restored=True, ran=ran, **request)

    def launch(self, *, restored: bool = False, ran: bool = False, **request: Any) -> Deployment:
        world, plan = self._world, launch_of("one")
        plan = plan.with_request(msgspec.structs.replace(plan.request, **request))
        nodes = cast(Mapping[str, Node], {LOCAL_NODE: world.context.nodes[LOCAL_NODE], **self.place.made})
        world.context = dataclasses.replace(world.context, nodes=nodes, placer=self.place.placer)
        world.store.add_deployment("one", encoded(plan))
        deployment = world.deployments["one"] = Deployment(
            plan, world.context, 0.0, starter=world.starter, restored=restored, ran=ran
        )
        deployment.begin()
        return deployment


def node_of_replica(deployment: Deployment) -> str:
    assert isinstance(deployment.plan, SizedPlan)
    return deployment.plan.place_of(0).node_id


async def until_over(deployment: Deployment) -> None:
    await until_async("the launch is over", lambda: deployment.ready or deployment.problem is not None, seconds=5)


async def until_it_waits(world: World, content: str) -> None:
    """Until an event of the launch begins with `content`."""
    await until_async("it waits", lambda: any(text.startswith(content) for text in world.contents()), seconds=5)


@pytest.mark.parametrize("lost_step", ["fetch", "environment"])
async def test_another_worker_takes_a_launch_whose_worker_is_lost_in_a_step(tmp_path: Path, lost_step: str) -> None:
    async with running_world(tmp_path) as world:
        site = Site(world)

        def end(step: str) -> None:
            if step == lost_step:
                site.lose(FIRST)
                raise LOST

        site.first.ends = end
        deployment = site.launch()
        await until_over(deployment)
        assert deployment.problem is None and node_of_replica(deployment) == SECOND
        assert site.first.steps[-1] == lost_step and "fetch" in site.second.steps
        warnings = [each for each in world.events.stored("one") if each["event_type"] == "WARNING"]
        assert [each["event_content"] for each in warnings] == [AGAIN]
        assert [place.node_id for place in world.ledger["one"].places] == [SECOND]


async def test_no_other_worker_takes_a_launch_that_names_the_lost_one(tmp_path: Path) -> None:
    async with running_world(tmp_path, node_lost_seconds=0.0) as world:
        site = Site(world)

        def end(step: str) -> None:
            site.lose(FIRST)
            raise LOST

        site.first.ends = end
        deployment = site.launch(worker_ip="box1")
        await until_over(deployment)
        assert deployment.problem is not None and deployment.problem.code == Code.NO_NODE
        assert f"{FIRST} (box1) is LOST" in deployment.problem.cause
        assert site.second.steps == []


async def test_a_launch_waits_for_its_only_worker_to_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "NODE_SECONDS", 0.0)
    async with running_world(tmp_path) as world:
        site = Site(world)

        def end(step: str) -> None:
            site.lose(FIRST)
            site.first.ends = lambda step: None
            raise LOST

        site.first.ends = end
        deployment = site.launch(worker_ip="box1")
        await until_async("the loss is told", lambda: AGAIN in world.contents(), seconds=5)
        assert deployment.problem is None
        site.place.make_ready(site.place.members.get(FIRST))
        await until_over(deployment)
        assert deployment.problem is None and node_of_replica(deployment) == FIRST


async def test_a_model_that_ends_each_worker_is_prepared_a_bounded_number_of_times(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        site = Site(world)

        def end(step: str) -> None:
            raise LOST  # and its next process is there at once

        site.first.ends = site.second.ends = end
        deployment = site.launch()
        await until_over(deployment)
        assert deployment.problem is not None and deployment.problem.code == Code.NODE_GONE
        assert len(site.first.steps + site.second.steps) == loader.MAX_LOST_NODES + 1


async def test_a_problem_of_the_weights_is_no_loss_of_a_worker(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        site = Site(world)

        def end(step: str) -> None:
            raise Problem(Code.DISK_FULL, "The disk is full.")

        site.first.ends = end
        deployment = site.launch()
        await until_over(deployment)
        assert deployment.problem is not None and deployment.problem.code == Code.DISK_FULL
        assert site.second.steps == []


async def test_a_launch_on_demand_is_prepared_on_another_worker_too(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        site = Site(world)

        def end(step: str) -> None:
            site.lose(FIRST)
            raise LOST

        site.first.ends = end
        site.place.members.get(SECOND).node.receive(Event(1, encode(HostIs(HOST))))
        deployment = site.launch(on_demand=True)
        with deployment.wait("one"):
            await until_over(deployment)
        assert deployment.problem is None and node_of_replica(deployment) == SECOND


@pytest.mark.parametrize("ran", [True, False])
async def test_a_restored_launch_waits_for_the_workers_which_connect_after_the_server_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: bool
) -> None:
    monkeypatch.setattr(loader, "NODE_SECONDS", 0.0)
    async with running_world(tmp_path, node_lost_seconds=0.0 if ran else 30.0) as world:
        site = Site(world)
        site.lose_all()
        deployment = site.restore(ran=ran)
        await until_it_waits(world, "waits: No node")
        for _ in range(20):
            await turns()
        assert deployment.problem is None
        assert len([text for text in world.contents() if "waits: No node" in text]) == 1
        site.place.make_ready(site.place.members.get(SECOND))
        await until_over(deployment)
        assert deployment.problem is None and node_of_replica(deployment) == SECOND


async def test_a_restored_model_on_demand_that_is_unloaded_waits_for_the_workers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "NODE_SECONDS", 0.0)
    async with running_world(tmp_path, node_lost_seconds=0.0) as world:
        site = Site(world)
        site.lose_all()
        deployment = site.restore(ran=True, on_demand=True)
        await until_it_waits(world, "waits: No node")
        site.place.make_ready(site.place.members.get(SECOND))
        site.place.members.get(SECOND).node.receive(Event(1, encode(HostIs(HOST))))
        with deployment.wait("one"):
            await until_over(deployment)
        assert deployment.problem is None and node_of_replica(deployment) == SECOND


async def test_a_restored_model_waits_for_a_worker_with_enough_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "NODE_SECONDS", 0.0)
    async with running_world(tmp_path, node_lost_seconds=0.0) as world:
        site = Site(world)
        site.lose(FIRST)
        site.second.resources = dataclasses.replace(HOST, memory_available=10 * MIB)
        deployment = site.restore(ran=True)
        await until_it_waits(world, "waits: ")
        site.place.make_ready(site.place.members.get(FIRST))
        await until_over(deployment)
        assert deployment.problem is None and node_of_replica(deployment) == FIRST


async def test_a_restored_launch_that_was_never_ready_waits_a_bounded_time(tmp_path: Path) -> None:
    async with running_world(tmp_path, node_lost_seconds=0.0) as world:
        site = Site(world)
        site.lose_all()
        deployment = site.restore(ran=False)
        await until_over(deployment)
        assert deployment.problem is not None and deployment.problem.code == Code.NO_NODE
