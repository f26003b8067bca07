"""Replicas that are added to a deployment whose engine is a scriptable one, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fakes.running import ENGINE
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.deployments.admission import Admission
from xinference.deployments.context import DeploymentContext
from xinference.deployments.deployment import Deployment
from xinference.deployments.replica_set import Scaler
from xinference.engines.base import Placement
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.errors import Problem
from xinference.launch.match import match
from xinference.launch.plan import LaunchPlan, Sizing
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


@pytest.fixture
async def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    store = Store(tmp_path / "x.db")
    made: list[Deployment] = []
    monkeypatch.setattr(Scaler, "_room_for_one", _room)

    async def launch(*scripts: dict[str, Any], **settings: Any) -> tuple[Deployment, Store]:
        request = LaunchRequest(model_name="llama-2-chat", model_format="ggufv2")
        version = match(builtin_families(), request)
        sizing = Sizing(512, 1, 1, 1, 1)
        plan = LaunchPlan("one", request, version, "Scripted", None, Path("x"), 1, False, sizing=sizing)
        engine, events = Scripted(*scripts), EventLog(store)
        admission = Admission(Settings(), store, list)
        around = DeploymentContext(
            Settings(home=tmp_path, stop_seconds=2, restart_backoff_seconds=0.01, **settings),
            *(store, events, {}, {"Scripted": engine}, lambda: None, admission),
        )
        store.add_deployment("one", msgspec.json.encode(request).decode())
        deployment = Deployment(plan, around, created=0.0)
        monkeypatch.setattr(deployment._loading, "stages", Here())
        made.append(deployment)
        deployment.begin()
        async with asyncio.timeout(30):
            while not deployment.ready and not deployment.problem:
                await asyncio.sleep(0.01)
        return deployment, store

    yield launch
    for deployment in made:
        await deployment.end("terminate")
    store.close()


class Here:
    """Stages with nothing to do."""

    async def weights(self, plan: LaunchPlan) -> LaunchPlan:
        return plan

    async def environment(self, engine: Any) -> Path:
        return Path(sys.executable)


async def _room(self: Scaler, gpu_idx: tuple[int, ...]) -> tuple[int, ...]:
    return ()


def wanted(store: Store) -> int:
    (row,) = store.deployments()
    return msgspec.json.decode(row.request, type=LaunchRequest).replica


def statuses(deployment: Deployment) -> list[str]:
    return [replica["status"] for replica in deployment.replicas]


async def test_a_replica_that_can_not_be_started_is_taken_back(launch: Callable[..., Any]) -> None:
    deployment, store = await launch({}, {"die": {"at_start": True}})
    with pytest.raises(Problem, match="exited with status 1"):
        await deployment.scaler.add()
    assert (wanted(store), statuses(deployment)) == (1, ["READY"])
    assert len(store.replicas("one")) == 1
    assert any("replica 1 could not be started" in event["event_content"] for event in store.events("one"))


async def test_a_replica_is_removed_while_it_starts_and_whoever_waits_is_told(launch: Callable[..., Any]) -> None:
    deployment, store = await launch({}, {"health_delay": 60})
    waiting = asyncio.create_task(deployment.scaler.add())
    async with asyncio.timeout(30):
        while "LOADING" not in statuses(deployment):
            await asyncio.sleep(0.01)
    assert await deployment.scaler.remove(1) == 1
    with pytest.raises(Problem, match="ended before it was ready"):
        await waiting
    assert (wanted(store), statuses(deployment)) == (1, ["READY"])


async def test_the_end_of_the_deployment_ends_a_replica_that_starts(launch: Callable[..., Any]) -> None:
    deployment, store = await launch({}, {"health_delay": 60})
    waiting = asyncio.create_task(deployment.scaler.add())
    async with asyncio.timeout(30):
        while "LOADING" not in statuses(deployment):
            await asyncio.sleep(0.01)
    pids = [replica["engine_pid"] for replica in deployment.replicas]
    await deployment.end("terminate")
    with pytest.raises(Problem, match="ended before it was ready"):
        await waiting
    assert not any(Path(f"/proc/{pid}").exists() and os.getpgid(pid) for pid in pids)
    assert store.replicas("one") == []


async def test_when_the_healthy_replica_goes_the_lost_one_decides(launch: Callable[..., Any]) -> None:
    deployment, _ = await launch({}, {}, {"die": {"at_start": True}}, restart_limit=1)
    await deployment.scaler.add()
    os.kill(deployment.replicas[1]["engine_pid"], 9)
    async with asyncio.timeout(30):
        while "ERROR" not in statuses(deployment):
            await asyncio.sleep(0.01)
    assert statuses(deployment) == ["READY", "ERROR"]
    assert "not started again" in deployment.replicas[1]["error_message"]
    await deployment.scaler.remove(0)
    async with asyncio.timeout(30):
        while deployment.problem is None:
            await asyncio.sleep(0.01)
    assert deployment.problem.code == "engine_keeps_dying"
    with pytest.raises(Problem, match="is not running"):
        await deployment.scaler.add()


class Busy(NoLoad):
    """A data path with an answer on its way from every replica, until it is told otherwise."""

    busy = True

    def at(self, replica_id: str) -> int:
        return int(self.busy)


async def closed(deployment: Deployment, number: int) -> None:
    async with asyncio.timeout(30):
        while statuses(deployment)[number] != "TERMINATING":
            await asyncio.sleep(0.01)


async def test_a_removed_replica_leaves_the_routes_at_once_and_ends_after_its_last_answer(
    launch: Callable[..., Any],
) -> None:
    deployment, store = await launch({})
    await deployment.scaler.add()
    use = deployment._around.admission.use = Busy()
    ids, pid = deployment.replica_ids, deployment.replicas[0]["engine_pid"]
    removing = asyncio.create_task(deployment.scaler.remove(0))
    await closed(deployment, 0)
    assert [target.replica_id for target in deployment.route.targets] == ids[1:]
    assert (wanted(store), Path(f"/proc/{pid}").exists(), removing.done()) == (1, True, False)
    with pytest.raises(Problem, match="1 is the only replica"):
        await deployment.scaler.remove(1)
    with pytest.raises(Problem, match="has no replica 0"):
        await deployment.scaler.remove(0)
    assert await deployment.scaler.add() == 2  # its number is free once it has ended
    use.busy = False
    assert await removing == 1
    assert [replica["replica_id"] for replica in deployment.replicas] == [1, 2]


async def test_an_answer_that_takes_too_long_does_not_keep_a_removed_replica(launch: Callable[..., Any]) -> None:
    deployment, store = await launch({}, drain_seconds=0.05)
    await deployment.scaler.add()
    deployment._around.admission.use = Busy()
    assert await deployment.scaler.remove(0) == 1
    assert statuses(deployment) == ["READY"]
    assert any("with answers on their way" in event["event_content"] for event in store.events("one"))


async def test_a_removed_replica_that_dies_meanwhile_is_not_started_again(launch: Callable[..., Any]) -> None:
    deployment, store = await launch({})
    await deployment.scaler.add()
    use = deployment._around.admission.use = Busy()
    removing = asyncio.create_task(deployment.scaler.remove(1))
    await closed(deployment, 1)
    os.kill(deployment.replicas[1]["engine_pid"], 9)
    async with asyncio.timeout(30):
        while len(store.replicas("one")) > 1:
            await asyncio.sleep(0.01)
    use.busy = False
    assert await removing == 1
    assert statuses(deployment) == ["READY"]


async def test_the_end_of_the_deployment_does_not_wait_for_a_removed_replica(launch: Callable[..., Any]) -> None:
    deployment, store = await launch({})
    await deployment.scaler.add()
    use = deployment._around.admission.use = Busy()
    removing = asyncio.create_task(deployment.scaler.remove(1))
    await closed(deployment, 1)
    await deployment.end("terminate")
    assert store.replicas("one") == []
    use.busy = False
    assert await removing == 1
