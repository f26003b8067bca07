"""Rows of an earlier server: what runs is adopted before it is planned, and no row keeps the server from starting."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from tests.deployments.doubles import SIZING, FakeReplica, launch_of, turns
from tests.support.polling import until_async
from xinference.control import restoration as module
from xinference.control.controller import Controller
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.launch_context import encode_launch
from xinference.store.database import Store

PATH = "/not/mounted/now.gguf"


class Engines:
    """The running replicas of an earlier server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.running: dict[str, FakeReplica] = {}

    def leave(self, uid: str, request: str | None = None, *, launch: bool = True, **fields: Any) -> FakeReplica:
        """A row whose weights are not there now, and its running replica."""
        plan = launch_of(uid, model_engine="llama.cpp", model_path=PATH, **fields)
        self._store.add_deployment(uid, request or msgspec.json.encode(plan.request).decode())
        self._store.add_replica(f"r-{uid}", uid, 0)
        context = {"uid": uid, "path": PATH, "sizing": msgspec.structs.asdict(SIZING), "devices": []}
        context |= {"launch": encode_launch(plan)} if launch else {}
        replica = FakeReplica(f"r-{uid}", lambda: None, json.loads(json.dumps(context)))
        replica.become_ready()
        self.running[replica.snapshot.replica_id] = replica
        return replica

    async def adopt(self, uid: str, store: Store, nodes: object) -> dict[str, FakeReplica]:
        return {row.replica_id: self.running[row.replica_id] for row in store.replicas(uid)}


@pytest.fixture
def engines(store: Store, monkeypatch: pytest.MonkeyPatch) -> Engines:
    engines = Engines(store)
    monkeypatch.setattr(module, "adopt_running", engines.adopt)
    return engines


async def test_a_running_engine_whose_weights_are_gone_now_answers_on(controller: Controller, engines: Engines) -> None:
    replica = engines.leave("m")
    await controller.start()
    await turns()
    deployment = controller.running("m")
    assert deployment.ready and deployment.problem is None and not replica.stopped
    assert deployment.description["context_length"] == SIZING.context_length
    (target,) = controller.table.routes["m"].targets
    assert target.replica_id == "r-m"
    await controller.terminate("m")
    assert replica.stopped and controller.deployments() == []


@pytest.mark.parametrize("request_text", ["no request", '{"model_name":"no-such-family","model_engine":"llama.cpp"}'])
async def test_so_does_one_whose_row_cannot_be_read_or_names_an_unknown_family(
    controller: Controller, engines: Engines, store: Store, request_text: str
) -> None:
    replica = engines.leave("m", request_text)
    await controller.start()
    await turns()
    assert controller.running("m").ready and not replica.stopped


async def test_the_row_decides_the_number_of_replicas_and_the_engine_everything_else(
    controller: Controller, engines: Engines, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.get_running_loop().create_future()
    begun.set_result(1)
    monkeypatch.setattr(Deployment, "begin", lambda deployment: begun)  # the second replica is not started
    engines.leave("m")
    stored = msgspec.json.decode(store.deployments()[0].request)
    store.set_request("m", json.dumps(stored | {"replica": 2, "envs": {"LD_PRELOAD": "/tmp/evil.so"}}))
    await controller.start()
    request = controller.running("m").plan.request
    assert (request.replica, request.envs) == (2, {})


async def test_a_running_engine_of_a_release_that_stored_no_launch_is_kept_and_ended_by_terminate(
    controller: Controller, engines: Engines
) -> None:
    replica = engines.leave("m", launch=False)
    await controller.start()
    assert isinstance(controller.deployment("m"), BrokenDeployment) and not replica.stopped
    await controller.terminate("m")
    assert replica.stopped


async def test_a_row_that_is_not_wanted_needs_no_plan_and_ends_its_engine(
    controller: Controller, engines: Engines, store: Store
) -> None:
    replica = engines.leave("m")
    store.set_unwanted("m")
    await controller.start()
    assert replica.stopped and store.deployments() == [] and controller.deployments() == []


async def test_the_engine_of_a_row_that_has_failed_is_ended(
    controller: Controller, engines: Engines, store: Store
) -> None:
    replica = engines.leave("m")
    store.set_problem("m", Problem(Code.ENGINE_KEEPS_DYING, "It died again."))
    await controller.start()
    assert replica.stopped


async def test_a_server_that_is_killed_leaves_the_engines_of_every_row(
    controller: Controller, engines: Engines
) -> None:
    kept, broken = engines.leave("kept"), engines.leave("broken", launch=False)
    await controller.start()
    await turns()
    await controller.close("detach")
    assert kept.detached and broken.detached and not (kept.stopped or broken.stopped)


async def test_a_defect_in_one_row_keeps_no_other_row_and_no_server(
    controller: Controller, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.leave("good")
    replica = engines.leave("bad")

    async def draft(request: object, uid: str) -> object:
        if uid == "bad":
            raise OverflowError("a number that no one expected")
        raise Problem(Code.MODEL_PATH_NOT_FOUND, "gone")

    monkeypatch.setattr(controller.planner, "draft", draft)
    await controller.start()
    await turns()
    assert controller.running("good").ready
    broken = controller.deployment("bad")
    assert broken.problem is not None and broken.problem.code == "internal_error"
    await controller.terminate("bad")
    assert replica.stopped


async def test_one_that_does_not_end_keeps_no_other_from_its_end(
    controller: Controller, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = engines.leave("first"), engines.leave("second")
    await controller.start()
    await turns()
    ends = Deployment.end

    async def end(deployment: Deployment, how: Any) -> None:
        if deployment.uid == "first":
            raise OSError("it can not")
        await ends(deployment, how)

    with monkeypatch.context() as patch:
        patch.setattr(Deployment, "end", end)
        await controller.close("stop")
    assert second.stopped and not first.stopped


async def test_engines_that_no_row_names_are_logged(
    controller: Controller, engines: Engines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engines.leave("known")
    monkeypatch.setattr(module, "keepers_of", lambda run_dir: {"r-known": [1, 2], "rlost": [3, 4]})
    await controller.start()
    await until_async("they are logged", lambda: "engines without a row in the database run" in caplog.text)
    assert "rlost (pids 3, 4)" in caplog.text and "r-known" not in caplog.text
