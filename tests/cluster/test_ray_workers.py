"""The workers on the nodes of Ray: who is started, found, refused and given back, with a scripted Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Site, a_cluster
from tests.support.polling import until_async
from xinference.api.ray_entries import ray_entry
from xinference.cluster.ray_plan import GONE_SECONDS, RAY, STARTED_BY, RayWorker
from xinference.cluster.ray_workers import RayWorkers
from xinference.config import Settings
from xinference.fabric.ray_messages import Hold, RayNodeEntry, RayState, Want, Wishes, WorkerOrder, WorkerReport
from xinference.fabric.ray_session import RaySession
from xinference.nodes.hello import hello
from xinference.nodes.join_tokens import parse_token
from xinference.planning.eviction import HOST

BOX = RayNodeEntry("r1", "box1", "10.0.0.2", {"CPU": 8.0, "memory": 1e6})


@dataclass
class ScriptedRay:
    """A Ray whose nodes start machines of the test's cluster."""

    site: Site
    state: RayState | None = None
    lost: None = None
    orders: list[WorkerOrder] = field(default_factory=list)
    wishes: Wishes = field(default_factory=Wishes)
    was: str = ""
    refusal: str = ""

    def start(self) -> None: ...

    async def close(self) -> None: ...

    def wish(self, wishes: Wishes) -> None:
        self.wishes = wishes

    async def find_or_start(self, ray_node: str, order: WorkerOrder) -> WorkerReport:
        self.orders.append(order)
        if self.refusal:
            return WorkerReport(refusal=self.refusal)
        if not order.token:
            return WorkerReport(was=self.was, home="/h")
        machine = self.site.machine(f"m{len(self.orders)}")
        node_id = await machine.join(order.token)
        await machine.greet(hello("box1", f"127.0.0.1:{machine.port}", order.labels, "", None))
        return WorkerReport(node_id, pid=7, is_new=True, home="/h")


@dataclass
class Scene:
    """The workers of a cluster on a scripted Ray, with a clock that the test moves."""

    site: Site
    ray: ScriptedRay
    workers: RayWorkers
    now: list[float]

    async def tick(self) -> None:
        """One comparison of the nodes with the workers, until all its tasks have ended."""
        self.workers._tick()
        await self.workers._tasks.wait()

    @property
    def problem(self) -> str:
        return self.workers.workers["r1"].problem


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async with a_cluster(tmp_path) as site:
        ray = ScriptedRay(site, RayState("10.0.0.1", "2.60.0", (BOX,)))
        now = [100.0]
        settings = _settings(site, ray_address="auto", host="0.0.0.0")
        workers = RayWorkers(settings, site.cluster, lambda: now[0])
        monkeypatch.setattr(workers, "session", ray)
        yield Scene(site, ray, workers, now)


def _settings(site: Site, **fields: Any) -> Settings:
    return replace(site.cluster._settings, **fields)


async def test_a_node_of_ray_gets_a_worker_with_a_token_for_one_use(scene: Scene) -> None:
    await scene.tick()
    looked, started = scene.ray.orders
    assert (looked.token, started.endpoint) == ("", "http://10.0.0.1:9997")
    assert started.labels == {STARTED_BY: RAY} and started.link_port == scene.site.cluster.port
    assert parse_token(started.token) and scene.site.cluster.tokens() == [], "it is deleted after the start"
    (member,) = scene.site.cluster.members
    assert scene.workers.workers["r1"].node_id == member.node_id and scene.workers.node_ids() == [member.node_id]
    await scene.tick()
    assert len(scene.ray.orders) == 2, "it is linked: Ray is asked no more"


async def test_each_session_of_ray_asks_each_node_again(scene: Scene) -> None:
    await scene.tick()
    state, scene.ray.state = scene.ray.state, None
    await scene.tick()
    assert scene.workers.workers["r1"].node_id, "the worker stays known"
    scene.ray.state = state
    scene.ray.refusal = "Ray has not run a task there"
    await scene.tick()
    assert len(scene.ray.orders) == 3 and scene.problem == "Ray has not run a task there"


async def test_what_replicas_use_is_wished_and_given_back(scene: Scene) -> None:
    await scene.tick()
    uses = [{HOST: 300}]
    scene.workers.reserved = lambda node_id: uses
    await scene.tick()
    assert scene.ray.wishes == Wishes((Hold("r1", (), 300, 1.0),))
    uses.clear()
    await scene.tick()
    assert scene.ray.wishes == Wishes()


async def test_a_node_that_an_operator_has_removed_gets_no_worker(scene: Scene) -> None:
    await scene.tick()
    (member,) = scene.site.cluster.members
    await scene.site.cluster.remove(member.node_id)
    scene.ray.was = member.node_id
    scene.now[0] += 1000
    await scene.tick()
    assert f"its node {member.node_id} was removed" in scene.problem and "/h/cluster" in scene.problem
    assert not scene.ray.orders[-1].token


async def test_a_worker_whose_machine_has_left_ray_is_given_back_and_may_join_anew(scene: Scene) -> None:
    await scene.tick()
    (member,) = scene.site.cluster.members
    scene.ray.state = RayState("10.0.0.1", "2.60.0")
    uses = [{HOST: 300}]
    scene.workers.reserved = lambda node_id: uses
    await scene.tick()
    scene.now[0] += GONE_SECONDS
    await scene.tick()
    assert list(scene.site.cluster.members) == [member], "its replicas run on"
    uses.clear()
    for machine in scene.site.machines:  # the worker ends when it is told to
        for stream in machine.streams:
            stream.close()
    await scene.tick()
    await until_async("it is removed", lambda: not list(scene.site.cluster.members))
    assert member.node_id in scene.site.cluster.removed_nodes and member.node_id in scene.site.cluster.given_back
    scene.ray.state, scene.ray.was = RayState("10.0.0.1", "2.60.0", (BOX,)), member.node_id
    await scene.tick()
    assert scene.ray.orders[-1].joins_anew and scene.workers.node_ids() != [member.node_id]


async def test_a_supervisor_on_loopback_tells_the_nodes_that_cannot_reach_it(scene: Scene) -> None:
    scene.workers._settings = _settings(scene.site, host="127.0.0.1")
    await scene.tick()
    assert "--host 0.0.0.0" in scene.problem and scene.ray.orders == []


async def test_a_session_without_a_driver_gives_a_refusal(tmp_path: Path) -> None:
    session = RaySession("auto", tmp_path / "ray.log", lambda: None)
    session._receive(RayState("10.0.0.1", "2.60.0", (BOX,)))
    asking = asyncio.create_task(session.find_or_start("r1", WorkerOrder("n1", "http://h:1", 2, 3)))
    await asyncio.sleep(0)
    session._note_ended()
    assert (await asking).refusal == "Ray is not reached" and session.state is None


async def test_the_entry_of_the_api_names_each_node_with_its_worker_and_its_problem(scene: Scene) -> None:
    await scene.tick()
    scene.ray.state = RayState("10.0.0.1", "2.60.0", (BOX,), {"r1": "the GPUs 1"})
    scene.workers.wants = lambda: (Want("big", 1),)
    (member,) = scene.site.cluster.members
    entry = ray_entry("auto", scene.workers, scene.site.cluster.members)
    (node,) = entry.pop("nodes")
    assert entry == {
        "address": "auto", "is_reached": True, "version": "2.60.0", "problem": None, "wanted": ["big"],
    }  # fmt: skip
    assert (node["ray_node"], node["node_id"], node["problem"]) == (
        "r1",
        member.node_id,
        "not reserved in Ray: the GPUs 1",
    )
    scene.workers.workers["r1"] = RayWorker(BOX, problem="no package")
    (failed,) = ray_entry("auto", scene.workers, scene.site.cluster.members)["nodes"]
    assert (failed["node_id"], failed["state"], failed["problem"]) == (None, "FAILED", "no package")
