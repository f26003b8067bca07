"""The rows of an earlier server become deployments, one by one, and none keeps another from being restored."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from tests.control.parts import Parts
from tests.control.test_controller import DIED, add_row
from tests.deployments.doubles import FakeReplica
from xinference.control import restoration as module
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.store.database import Store


@pytest.fixture(autouse=True)
def running(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeReplica]:
    """The replicas that run, by the uid of their deployment."""
    running: dict[str, FakeReplica] = {}

    async def adopt(uid: str, store: Store, nodes: object) -> Mapping[str, Any]:
        return {f"r-{uid}": running[uid]} if uid in running else {}

    monkeypatch.setattr(module, "adopt_running", adopt)
    return running


async def test_a_row_becomes_a_deployment_that_begins(parts: Parts, begun: list[Deployment]) -> None:
    add_row(parts.store, "m")
    await parts.restoration.restore()
    assert [deployment.uid for deployment in begun] == parts.uids() == ["m"]
    assert begun[0].snapshot.ran and "m" in parts.publisher.table.routes


async def test_a_failed_or_unloaded_deployment_is_still_that(parts: Parts, begun: list[Deployment]) -> None:
    add_row(parts.store, "failed", DIED)
    add_row(parts.store, "unloaded")
    parts.store.set_unloaded("unloaded")
    await parts.restoration.restore()
    failed, unloaded = (parts.registry.running(uid) for uid in ("failed", "unloaded"))
    assert failed.problem is not None and failed.problem.code == "engine_died"
    assert unloaded.snapshot.unloaded and unloaded.problem is None


@pytest.mark.parametrize("state", ["is being terminated", "failed and never ran"])
async def test_a_row_that_is_not_restored_is_removed_with_its_engine(
    parts: Parts, begun: list[Deployment], running: dict[str, FakeReplica], state: str
) -> None:
    running["m"] = replica = FakeReplica("r-m", lambda: None)
    if state == "is being terminated":
        add_row(parts.store, "m")
        parts.store.set_unwanted("m")
    else:
        add_row(parts.store, "m", DIED, ran=False)
    await parts.restoration.restore()
    assert replica.stopped and parts.uids() == [] and parts.store.deployments() == [] and begun == []


async def test_a_row_that_cannot_be_planned_is_broken_and_the_others_are_restored(
    parts: Parts, begun: list[Deployment], running: dict[str, FakeReplica]
) -> None:
    running["bad"] = FakeReplica("r-bad", lambda: None)
    parts.store.add_deployment("bad", "no request")
    add_row(parts.store, "good")
    await parts.restoration.restore()
    broken = parts.registry.deployment("bad")
    assert isinstance(broken, BrokenDeployment) and broken.problem.code == "unreadable_row"
    assert broken.adopted == (running["bad"],) and not running["bad"].stopped
    assert isinstance(parts.registry.deployment("good"), Deployment)


async def test_a_defect_is_the_problem_of_its_row(parts: Parts, begun: list[Deployment]) -> None:
    add_row(parts.store, "m")
    parts.fake_planner.problem = OverflowError("a number that no one expected")  # type: ignore[assignment]  # a defect is no Problem
    await parts.restoration.restore()
    problem = parts.registry.deployment("m").problem
    assert problem is not None and problem.code == "internal_error" and "OverflowError" in problem.cause


async def test_a_running_engine_keeps_its_plan_when_its_row_cannot_be_planned(
    parts: Parts, begun: list[Deployment], running: dict[str, FakeReplica]
) -> None:
    from tests.control.test_take_up import Engines

    running["m"] = Engines(parts.store).leave("m")
    request = msgspec.json.decode(parts.store.deployments()[0].request)
    parts.store.set_request("m", msgspec.json.encode(request | {"replica": 2, "n_gpu": 7}).decode())
    parts.fake_planner.problem = Problem(Code.MODEL_PATH_NOT_FOUND, "The weights are gone.")
    await parts.restoration.restore()
    restored = parts.registry.running("m").plan.request
    assert (restored.replica, restored.n_gpu) == (2, request.get("n_gpu", "auto"))


async def test_the_server_goes_on_when_every_deployment_has_taken_up_its_engines(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_row(parts.store, "m")
    taken_up, begun = asyncio.get_running_loop().create_future(), asyncio.Event()

    def begin(deployment: Deployment) -> asyncio.Future[int]:
        begun.set()
        return taken_up

    monkeypatch.setattr(Deployment, "begin", begin)
    restoring = asyncio.create_task(parts.restoration.restore())
    await begun.wait()
    assert not restoring.done()
    taken_up.set_result(1)
    await restoring


async def test_events_of_uids_without_a_row_are_removed(parts: Parts, begun: list[Deployment]) -> None:
    add_row(parts.store, "m")
    for uid in ("m", "gone"):
        parts.events.add(uid, "INFO", "start", "started")
    await parts.restoration.restore()
    assert parts.events.stored("gone") == [] and len(parts.events.stored("m")) == 1


@pytest.mark.parametrize(("known", "is_logged"), [({"r-known", "r-lost"}, False), ({"r-known"}, True)])
async def test_engines_without_a_row_are_logged(
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    known: set[str],
    is_logged: bool,
) -> None:
    monkeypatch.setattr(module, "keepers_of", lambda run_dir: {"r-known": [1, 2], "r-lost": [3, 4]})
    await parts.restoration.warn_of_unknown_engines(known)
    assert ("r-lost (pids 3, 4)" in caplog.text) is is_logged and "r-known" not in caplog.text
