"""The controller takes up rows, publishes routes and answers those who wait. No process is started."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from xinference.control.controller import Controller
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store

DIED = Problem(Code.ENGINE_DIED, "The engine exited with status 1.", stage="start", log_tail=["its last words"])


def add_row(store: Store, uid: str, problem: Problem | None = None, *, ran: bool = True, **fields: Any) -> None:
    request = LaunchRequest(model_name="llama-2-chat", model_uid=uid, model_engine="llama.cpp", **fields)
    store.add_deployment(uid, msgspec.json.encode(request).decode())
    store.set_problem(uid, problem)
    if ran:
        store.note_ran(uid)


async def test_one_that_failed_is_shown_and_routed_with_its_reason(controller: Controller, store: Store) -> None:
    add_row(store, "m", DIED)
    await controller.start()
    deployment = controller.running("m")
    assert isinstance(deployment, Deployment)
    assert deployment.problem is not None and deployment.problem.to_dict() == DIED.to_dict()
    assert controller.table.routes["m"].problem is deployment.problem
    with pytest.raises(Problem, match="exited with status 1"):
        await controller.ensure_ready("m", 5)
    assert json.loads(controller.table.listing)["data"] == []


async def test_a_row_that_can_not_be_read_is_shown_and_can_be_terminated(controller: Controller, store: Store) -> None:
    store.add_deployment("m", "no request")
    await controller.start()
    assert isinstance(controller.deployment("m"), BrokenDeployment)
    with pytest.raises(Problem) as broken:
        controller.running("m")
    assert broken.value.code == "unreadable_row"
    await controller.terminate("m")
    assert store.deployments() == [] and controller.deployments() == []


async def test_what_was_being_terminated_is_finished(controller: Controller, store: Store) -> None:
    add_row(store, "m", DIED)
    store.set_unwanted("m")
    await controller.start()
    assert store.deployments() == [] and controller.deployments() == []


async def test_a_model_that_is_not_there_is_refused_with_those_that_are(controller: Controller, store: Store) -> None:
    add_row(store, "llama", DIED)
    await controller.start()
    for ask in (controller.deployment, controller.running, controller.events, controller.follow):
        with pytest.raises(Problem, match="no running model 'lama'") as unknown:
            ask("lama")
        assert unknown.value.hint == "Did you mean llama?"
    with pytest.raises(Problem, match="no running model"):
        await controller.ensure_ready("lama", 5)
    assert controller.progress("lama")["progress"] == 0.0


async def test_only_a_launch_that_is_on_its_way_can_be_cancelled(controller: Controller, store: Store) -> None:
    add_row(store, "m", DIED)
    await controller.start()
    with pytest.raises(Problem, match="it is failed") as refused:
        await controller.cancel("m")
    assert refused.value.code == "not_launching"


async def test_following_one_that_failed_ends_with_its_reason(controller: Controller, store: Store) -> None:
    add_row(store, "m", DIED)
    await controller.start()
    events = [event async for event in controller.follow("m")]
    assert events[-1]["event_type"] == "FAILED" and events[-1]["problem"]["code"] == "engine_died"


async def test_a_failed_model_is_replaced_by_a_new_launch_of_its_name(controller: Controller, store: Store) -> None:
    add_row(store, "m", DIED)
    await controller.start()
    with pytest.raises(Problem):  # the launch can't be: there are no weights here, and no connection
        await controller.launch(LaunchRequest(model_name="llama-2-chat", model_uid="m", model_path="/nowhere.gguf"))
    assert controller.running("m").problem is not None, "what failed is still there"


async def test_the_waits_end_when_a_model_is_terminated(controller: Controller, store: Store) -> None:
    add_row(store, "m", DIED)
    await controller.start()
    await asyncio.gather(controller.terminate("m"), controller.close("stop"))
    with pytest.raises(Problem, match="no running model"):
        await controller.ensure_ready("m", 5)
