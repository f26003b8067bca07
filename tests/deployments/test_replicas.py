"""Replicas that are added to a deployment whose engine is a scriptable one, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.deployments.doubles import FakePreparation, local_nodes, read_test_host, sized_plan
from tests.fakes.running import ENGINE
from tests.support.cluster import NODE, linked
from xinference.config import Settings
from xinference.deployments.admission import Admission
from xinference.deployments.context import DeploymentContext
from xinference.deployments.deployment import Deployment
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.engines.replica_placement import Placement
from xinference.errors import Problem
from xinference.hosts import LOCAL_NODE
from xinference.launch.plan import LaunchPlan
from xinference.launch.request import LaunchRequest
from xinference.process.command import EngineCommand
from xinference.routing.interfaces import NoLoad
from xinference.store.database import Store
from xinference.store.event_log import EventLog

pytestmark = pytest.mark.process


class Scripted(LlamaCpp):
    """Starts the fake engine; each start takes the next script, the last one for all that follow."""

    def __init__(self, *scripts: dict[str, Any]) -> None:
        self.scripts = list(scripts)

    def command(self, plan: LaunchPlan, api_key: str, placement: Placement) -> EngineCommand:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        argv = (sys.executable, str(ENGINE), "--port", "{port}", "--script", json.dumps(script))
        env = {"FAKE_ENGINE_KEY": api_key}
        return EngineCommand(argv=argv, env=env, model_name="fake", api_key=api_key)


class Load(NoLoad):
    """A data path that may have an answer on its way from every replica."""

    busy = False

    def at(self, replica_id: str) -> int:
        return int(self.busy)


@pytest.fixture(params=["this machine", "a node of a cluster"])
async def launch(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """The same on this machine and on a node behind a link: the deployment cannot tell them apart."""
    kind, store, links = request.param, Store(tmp_path / "x.db"), AsyncExitStack()
    made: list[Deployment] = []
    tasks: list[asyncio.Task[None]] = []

    async def launch(*scripts: dict[str, Any], **settings: Any) -> tuple[Launched, Store]:
        request = LaunchRequest(model_name="llama-2-chat", model_format="ggufv2")
        plan = sized_plan("one")
        engine, events, load, changes = Scripted(*scripts), EventLog(store), Load(), Changes()
        admission = Admission(Settings(), store, load, lambda: made, read_test_host)
        around, engines = (
            Settings(home=tmp_path, stop_seconds=2, restart_backoff_seconds=0.01, **settings),
            {"llama.cpp": engine},
        )
        nodes = local_nodes(around, engines, load)
        if kind != "this machine":
            link = await links.enter_async_context(linked(nodes[LOCAL_NODE]))
            nodes = {LOCAL_NODE: link.remote, NODE: link.remote}
        context = DeploymentContext(around, store, events, nodes, engines, changes.note, load, admission)
        store.add_deployment("one", msgspec.json.encode(request).decode())
        preparation = FakePreparation()
        preparation.python = Path(sys.executable)
        deployment = Deployment(plan, context, created=0.0, preparation=preparation)
        made.append(deployment)
        tasks.append(asyncio.create_task(admission.run()))
        deployment.begin()
        launched = Launched(deployment, load, changes)
        await launched.until(lambda: deployment.ready or deployment.problem is not None)
        return launched, store

    yield launch
    for deployment in made:
        await deployment.end("terminate")
    for task in tasks:
        task.cancel()
    await links.aclose()
    store.close()


class Changes:
    """Wakes those who wait for a new snapshot."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def note(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await self._event.wait()


@dataclass
class Launched:
    """A deployment and what the test decides of its data path."""

    deployment: Deployment
    load: Load
    changes: Changes

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await self.changes.wait()

    @property
    def statuses(self) -> list[str]:
        return [replica["status"] for replica in self.deployment.replicas]


def wanted(store: Store) -> int:
    (row,) = store.deployments()
    return msgspec.json.decode(row.request, type=LaunchRequest).replica


async def test_a_replica_that_can_not_be_started_is_taken_back(launch: Callable[..., Any]) -> None:
    launched, store = await launch({}, {"die": {"at_start": True}})
    with pytest.raises(Problem, match="exited with status 1"):
        await launched.deployment.add_replica()
    assert (wanted(store), launched.statuses) == (1, ["READY"])
    assert len(store.replicas("one")) == 1
    assert any("replica 1 could not be started" in event["event_content"] for event in store.events("one"))


async def test_a_successor_is_not_stored_before_its_predecessor_is_removed(launch: Callable[..., Any]) -> None:
    launched, store = await launch({}, {})
    number = await launched.deployment.add_replica(is_stored=False)
    assert (wanted(store), launched.statuses) == (1, ["READY", "READY"]), "the next server ends one of them"
    await launched.deployment.remove_replica(0)
    assert wanted(store) == 1 and number == 1


async def test_a_replica_is_removed_while_it_starts_and_whoever_waits_is_told(launch: Callable[..., Any]) -> None:
    launched, store = await launch({}, {"health_delay": 60})
    waiting = asyncio.create_task(launched.deployment.add_replica())
    await launched.until(lambda: len(launched.statuses) == 2 and bool(launched.deployment.replicas[1]["engine_pid"]))
    assert await launched.deployment.remove_replica(1) == 1
    with pytest.raises(Problem, match="stopped before it was ready"):
        await waiting
    assert (wanted(store), launched.statuses) == (1, ["READY"])


async def test_the_end_of_the_deployment_ends_a_replica_that_starts(launch: Callable[..., Any]) -> None:
    launched, store = await launch({}, {"health_delay": 60})
    waiting = asyncio.create_task(launched.deployment.add_replica())
    await launched.until(lambda: len(launched.statuses) == 2 and bool(launched.deployment.replicas[1]["engine_pid"]))
    pids = [replica["engine_pid"] for replica in launched.deployment.replicas]
    await launched.deployment.end("terminate")
    with pytest.raises(Problem, match="stopped before it was ready"):
        await waiting
    assert not any(Path(f"/proc/{pid}").exists() and os.getpgid(pid) for pid in pids)
    assert store.replicas("one") == []


async def test_when_the_healthy_replica_goes_the_lost_one_decides(launch: Callable[..., Any]) -> None:
    launched, _ = await launch({}, {}, {"die": {"at_start": True}}, restart_limit=1)
    await launched.deployment.add_replica()
    os.kill(launched.deployment.replicas[1]["engine_pid"], 9)
    await launched.until(lambda: "ERROR" in launched.statuses)
    assert launched.statuses == ["READY", "ERROR"]
    assert "not started again" in launched.deployment.replicas[1]["error_message"]
    await launched.deployment.remove_replica(0)
    await launched.until(lambda: launched.deployment.problem is not None)
    assert launched.deployment.problem.code == "engine_keeps_dying"
    with pytest.raises(Problem, match="is not running"):
        await launched.deployment.add_replica()


async def test_a_removed_replica_leaves_the_routes_at_once_and_ends_after_its_last_answer(
    launch: Callable[..., Any],
) -> None:
    launched, store = await launch({})
    await launched.deployment.add_replica()
    launched.load.busy = True
    ids, pid = list(launched.deployment.snapshot.replica_ids), launched.deployment.replicas[0]["engine_pid"]
    removing = asyncio.create_task(launched.deployment.remove_replica(0))
    await launched.until(lambda: launched.statuses[0] == "TERMINATING")
    assert [target.replica_id for target in launched.deployment.route.targets] == ids[1:]
    assert (wanted(store), Path(f"/proc/{pid}").exists(), removing.done()) == (1, True, False)
    with pytest.raises(Problem, match="1 is the only replica"):
        await launched.deployment.remove_replica(1)
    with pytest.raises(Problem, match="has no replica 0"):
        await launched.deployment.remove_replica(0)
    assert await launched.deployment.add_replica() == 2  # its number is free once it has ended
    launched.load.busy = False
    assert await removing == 1
    assert [replica["replica_id"] for replica in launched.deployment.replicas] == [1, 2]


async def test_an_answer_that_takes_too_long_does_not_keep_a_removed_replica(launch: Callable[..., Any]) -> None:
    launched, store = await launch({}, drain_seconds=0.05)
    await launched.deployment.add_replica()
    launched.load.busy = True
    assert await launched.deployment.remove_replica(0) == 1
    assert launched.statuses == ["READY"]
    assert any("with answers on their way" in event["event_content"] for event in store.events("one"))


async def test_a_removed_replica_that_dies_meanwhile_is_not_started_again(launch: Callable[..., Any]) -> None:
    launched, store = await launch({})
    await launched.deployment.add_replica()
    launched.load.busy = True
    removing = asyncio.create_task(launched.deployment.remove_replica(1))
    await launched.until(lambda: launched.statuses[1] == "TERMINATING")
    os.kill(launched.deployment.replicas[1]["engine_pid"], 9)
    await launched.until(lambda: len(store.replicas("one")) == 1)
    launched.load.busy = False
    assert await removing == 1
    assert launched.statuses == ["READY"]


async def test_the_end_of_the_deployment_does_not_wait_for_a_removed_replica(launch: Callable[..., Any]) -> None:
    launched, store = await launch({})
    await launched.deployment.add_replica()
    launched.load.busy = True
    removing = asyncio.create_task(launched.deployment.remove_replica(1))
    await launched.until(lambda: launched.statuses[1] == "TERMINATING")
    await launched.deployment.end("terminate")
    assert store.replicas("one") == []
    launched.load.busy = False
    assert await removing == 1
