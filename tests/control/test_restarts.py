"""Unload, load and restart of a deployment, and launches that fail before they were ready."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.control.test_controller import DIED, add_row
from tests.control.test_take_up import Engines, engines
from tests.deployments.doubles import turns
from xinference.control.controller import Controller
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.deployments.snapshot import Status
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store

__all__ = ["engines"]


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0.01)
        await turns()


async def last_event(controller: Controller, uid: str) -> dict[str, Any]:
    return [event async for event in controller.follow(uid)][-1]


# -- launches that fail --------------------------------------------------------------------------------------------


def fail(deployment: Deployment) -> None:
    """What the owner does when a deployment fails."""
    deployment._record.change(problem=DIED, launching=False)
    deployment._record.fail(DIED)


async def test_a_launch_that_never_ran_leaves_the_list_and_its_reason_stays(
    controller: Controller, store: Store, begun: list[Deployment]
) -> None:
    add_row(store, "m", ran=False)
    controller.history.begun("m", store.deployments()[0].request, 5.0)
    await controller.start()
    fail(controller.running("m"))
    await settled()
    assert controller.deployments() == [] and store.deployments() == [] and "m" not in controller.table.routes
    with pytest.raises(Problem, match="its launch has failed") as unknown:
        controller.deployment("m")
    assert "The engine exited with status 1" in str(unknown.value.hint)
    event = await last_event(controller, "m")
    assert event["event_type"] == "FAILED" and event["problem"]["log_tail"] == ["its last words"]
    assert controller.progress("m")["stage"] == "failed"
    (row,) = controller.history.all()
    assert row.problem is not None and row.ready is None


async def test_a_model_that_ran_before_stays_in_the_list_when_it_fails(
    controller: Controller, store: Store, begun: list[Deployment]
) -> None:
    add_row(store, "m")
    controller.history.begun("m", store.deployments()[0].request, 5.0)
    await controller.start()
    fail(controller.running("m"))
    await settled()
    assert controller.running("m").problem is not None and store.deployments()[0].problem is not None
    assert controller.history.all()[0].problem is not None


async def test_a_failed_launch_whose_server_was_killed_is_not_restored(controller: Controller, store: Store) -> None:
    add_row(store, "m", DIED, ran=False)
    await controller.start()
    assert controller.deployments() == [] and store.deployments() == []


async def test_a_launch_that_is_complete_has_run(controller: Controller, store: Store, begun: list[Deployment]) -> None:
    add_row(store, "m", ran=False)
    controller.history.begun("m", store.deployments()[0].request, 5.0)
    await controller.start()
    controller.running("m")._record.end_launch()
    assert store.deployments()[0].ran and controller.history.all()[0].ready is not None


# -- unload, load and restart --------------------------------------------------------------------------------------


async def test_a_failed_model_is_started_again_by_load_and_by_restart(
    controller: Controller, store: Store, engines: Engines, begun: list[Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_row(store, "m", DIED)
    await controller.start()
    monkeypatch.setattr(controller.planner, "resolve", resolved)
    for start in (controller.load, controller.restart):
        await start("m")
        deployment = controller.running("m")
        assert deployment is begun[-1] and deployment.problem is None and deployment.snapshot.ran
        assert store.deployments()[0].problem is None
        deployment._record.change(problem=DIED)
    assert len(begun) == 3


async def resolved(draft: Any, request: LaunchRequest) -> Any:
    from pathlib import Path

    from xinference.launch.plan import ResolvedLaunch

    return ResolvedLaunch(draft, Path("weights"))


async def test_a_model_that_runs_is_loaded_already_and_unloading_a_failed_one_changes_nothing(
    controller: Controller, store: Store, begun: list[Deployment]
) -> None:
    add_row(store, "runs")
    add_row(store, "failed", DIED)
    await controller.start()
    before = controller.running("runs")
    await controller.load("runs")
    await controller.unload("failed")
    assert controller.running("runs") is before and len(begun) == 2


async def test_an_unloaded_model_stays_unloaded_under_the_next_server_and_load_starts_it(
    controller: Controller, store: Store, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = engines.leave("m")
    await controller.start()
    await turns()
    await controller.unload("m")
    deployment = controller.running("m")
    assert replica.stopped and deployment.status is Status.UNLOADED and store.deployments()[0].unloaded
    with pytest.raises(Problem) as refused:
        await controller.ensure_ready("m", 5)
    assert refused.value.code == "model_unloaded" and "`xinference load m`" in str(refused.value.hint)
    monkeypatch.setattr(controller.planner, "resolve", resolved)
    begin = asyncio.get_running_loop().create_future()
    begin.set_result(0)
    monkeypatch.setattr(Deployment, "begin", lambda deployment: begin)
    await controller.load("m")
    assert controller.running("m") is not deployment and not store.deployments()[0].unloaded


async def test_a_broken_row_is_read_again_by_load(controller: Controller, store: Store) -> None:
    store.add_deployment("m", "no request")
    await controller.start()
    with pytest.raises(Problem) as refused:
        await controller.load("m")
    assert refused.value.code == "unreadable_row" and isinstance(controller.deployment("m"), BrokenDeployment)


async def test_a_restart_that_can_not_be_planned_leaves_the_model_as_it_is(
    controller: Controller, store: Store, engines: Engines
) -> None:
    replica = engines.leave("m")
    await controller.start()
    await turns()
    deployment = controller.running("m")
    with pytest.raises(Problem):  # its weights are not there
        await controller.restart("m")
    assert controller.running("m") is deployment and deployment.ready and not replica.stopped


async def test_a_termination_during_a_restart_wins(
    controller: Controller, store: Store, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = engines.leave("m")
    await controller.start()
    await turns()
    monkeypatch.setattr(controller.planner, "resolve", resolved)
    replica.stops.clear()
    restarting = asyncio.create_task(controller.restart("m"))
    await settled()
    terminating = asyncio.create_task(controller.terminate("m"))
    await turns()
    replica.let_stop()
    await terminating
    with pytest.raises(Problem) as cancelled:
        await restarting
    assert cancelled.value.code == Code.LAUNCH_CANCELLED
    assert controller.deployments() == [] and store.deployments() == []


async def test_a_reload_changes_and_removes_options_and_its_state_is_told(
    controller: Controller, store: Store, begun: list[Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_row(store, "m", DIED)
    await controller.start()
    deployment = controller.running("m")
    plan = deployment.snapshot.launch
    options = {"n_ctx": 512, "n_parallel": 2}
    deployment._record.change(plan=plan.with_request(msgspec.structs.replace(plan.request, options=options)))
    assert controller.reload_status("m")["status"] == "idle"

    async def draft(request: LaunchRequest, uid: str) -> Any:
        from dataclasses import replace

        return replace(plan.draft, request=request)

    monkeypatch.setattr(controller.planner, "draft", draft)
    monkeypatch.setattr(controller.planner, "resolve", resolved)
    await controller.reload("m", {"n_ctx": 1024, "n_parallel": None}, 1.0)
    assert controller.reload_status("m")["status"] in ("reloading", "error")
    await settled()
    assert controller.running("m").plan.request.options == {"n_ctx": 1024}
    assert controller.reload_status("m")["status"] == "reloading"
    controller.running("m")._record.end_launch()
    assert controller.reload_status("m") == {"status": "ready", "stage": "pending", "error": None}
