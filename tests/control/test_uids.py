"""A uid is free only after its deployment is gone, and equal launches of one uid at one moment are one launch."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.control.test_controller import DIED, add_row
from tests.control.test_planner import TINY
from tests.deployments.doubles import turns
from tests.formats.gguf_model import write_gguf
from xinference.control import store_writer as module
from xinference.control.controller import Controller
from xinference.control.same_launch import Launched
from xinference.deployments.deployment import Deployment
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store


class Ends:
    """The ends of deployments, which take until the test lets them."""

    def __init__(self) -> None:
        self.begun: list[Deployment] = []
        self.ended: list[Deployment] = []
        self.ending: list[Deployment] = []
        self.allowed = asyncio.Event()

    def begin(self, deployment: Deployment) -> asyncio.Future[int]:
        self.begun.append(deployment)
        adopted = asyncio.get_running_loop().create_future()
        adopted.set_result(0)
        return adopted

    async def end(self, deployment: Deployment, how: str) -> None:
        self.ending.append(deployment)
        await self.allowed.wait()
        self.ended.append(deployment)


@pytest.fixture
def request_(tmp_path: Path) -> LaunchRequest:
    path = write_gguf(TINY, "Q8_0", tmp_path / "w.gguf")
    return LaunchRequest(
        model_name="llama-2-chat",
        model_uid="m",
        model_engine="llama.cpp",
        model_format="ggufv2",
        quantization="Q8_0",
        n_gpu=None,
        model_path=str(path),
    )


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, controller: Controller) -> Iterator[Ends]:
    ends = Ends()
    monkeypatch.setattr(Deployment, "begin", lambda deployment: ends.begin(deployment))
    monkeypatch.setattr(Deployment, "end", lambda deployment, how: ends.end(deployment, how))

    async def no_size(launch: object, request: object) -> None:
        return None

    monkeypatch.setattr(controller.planner, "size", no_size)
    monkeypatch.setattr(controller.planner, "forecast", no_size)
    yield ends
    ends.allowed.set()


async def settled() -> None:
    """Let threads and tasks go on until each waits for the test."""
    for _ in range(20):
        await asyncio.sleep(0.01)
        await turns()


async def test_a_launch_during_a_termination_waits_for_its_end_and_then_starts(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    assert (await controller.launch(request_)).uid == "m"
    first = controller.running("m")
    ending = asyncio.create_task(controller.terminate("m"))
    await turns()
    again = asyncio.create_task(controller.launch(request_))
    await settled()
    assert not again.done() and controller.deployment("m") is first
    ends.allowed.set()
    await ending
    assert (await again).uid == "m"
    assert controller.running("m") is not first and ends.begun == [first, controller.running("m")]
    assert [row.uid for row in store.deployments() if row.wanted] == ["m"], "the row is that of the later launch"


async def test_the_name_of_a_model_that_is_being_terminated_is_used_again(
    controller: Controller, ends: Ends, request_: LaunchRequest
) -> None:
    unnamed = msgspec.structs.replace(request_, model_uid=None)
    assert (await controller.launch(unnamed)).uid == "llama-2-chat"
    ending = asyncio.create_task(controller.terminate("llama-2-chat"))
    await turns()
    again = asyncio.create_task(controller.launch(unnamed))
    await settled()
    ends.allowed.set()
    await ending
    assert (await again).uid == "llama-2-chat"


async def test_equal_launches_at_one_moment_are_one_launch(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    launched = await asyncio.gather(*(controller.launch(request_) for _ in range(5)))
    assert [each.uid for each in launched] == ["m"] * 5 and len(ends.begun) == 1 and len(store.deployments()) == 1


async def test_of_different_launches_of_one_uid_one_is_refused_with_what_has_it(
    controller: Controller, ends: Ends, request_: LaunchRequest
) -> None:
    other = msgspec.structs.replace(request_, replica=2)
    results = await asyncio.gather(controller.launch(request_), controller.launch(other), return_exceptions=True)
    (refused,) = [result for result in results if isinstance(result, Problem)]
    assert refused.code == "model_uid_taken" and len([each for each in results if isinstance(each, Launched)]) == 1


async def test_two_terminations_are_one_and_a_client_that_leaves_does_not_stop_it(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(request_)
    first = asyncio.create_task(controller.terminate("m"))
    second = asyncio.create_task(controller.terminate("m"))
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled() and not second.done() and len(ends.ending) == 1
    again = asyncio.create_task(controller.launch(request_))
    await settled()
    ends.allowed.set()
    await second
    assert (await again).uid == "m" and len(store.deployments()) == 1, "no late removal takes the new row"


async def test_a_failed_deployment_is_replaced_though_another_client_terminates_it(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    add_row(store, "m", DIED)
    await controller.start()
    ends.allowed.set()
    _, launched = await asyncio.gather(controller.terminate("m"), controller.launch(request_))
    assert launched.uid == "m" and controller.running("m").problem is None


async def test_a_termination_is_answered_when_it_is_stored(
    controller: Controller,
    store: Store,
    ends: Ends,
    request_: LaunchRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOCK_PAUSES", (0.01,) * 1000)
    await controller.launch(request_)
    ends.allowed.set()
    other = sqlite3.connect(tmp_path / "home" / "x.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    ending = asyncio.create_task(controller.terminate("m"))
    await settled()
    assert len(ends.ended) == 1 and not ending.done(), "the engine has ended, and a killed server would run it again"
    other.execute("ROLLBACK")
    other.close()
    await ending
    assert store.deployments() == [] and not store.waiting


async def test_a_termination_is_answered_though_the_store_stays_locked(
    controller: Controller,
    store: Store,
    ends: Ends,
    request_: LaunchRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOCK_PAUSES", (0.0,) * 3)
    await controller.launch(request_)
    ends.allowed.set()
    other = sqlite3.connect(tmp_path / "home" / "x.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    await controller.terminate("m")
    assert controller.deployments() == []
    other.execute("ROLLBACK")
    other.close()
    assert store.write_notes() and store.deployments() == []


async def test_a_launch_waits_a_moment_for_the_lock_of_another_program(
    controller: Controller,
    store: Store,
    ends: Ends,
    request_: LaunchRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOCK_PAUSES", (0.0,) * 5)
    other = sqlite3.connect(tmp_path / "home" / "x.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Problem) as refused:
        await controller.launch(request_)
    assert (refused.value.code, refused.value.status) == ("store_busy", 503)
    assert controller.deployments() == [] and ends.begun == []
    other.execute("ROLLBACK")
    other.close()
    assert (await controller.launch(request_)).uid == "m"


async def test_a_launch_on_a_full_disk_is_refused_and_nothing_of_it_stays(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    store._db.execute("CREATE TABLE rest(text TEXT)")
    store._db.execute("PRAGMA max_page_count=1")  # the file cannot grow: SQLite reports the same as on a full disk
    with pytest.raises(Problem) as refused:
        for number in range(100):
            await controller.launch(msgspec.structs.replace(request_, model_uid=f"m{number}"))
    assert (refused.value.code, refused.value.status) == ("disk_full", 507)
    uids = [row.uid for row in store.deployments()]
    assert [deployment.uid for deployment in controller.deployments()] == uids and len(ends.begun) == len(uids)


# -- the same launch is the same model -------------------------------------------------------------------------------


def unnamed_of(request: LaunchRequest, **fields: object) -> LaunchRequest:
    return msgspec.structs.replace(request, model_uid=None, **fields)


async def test_the_same_launch_without_a_uid_is_the_model_that_is_there(
    controller: Controller, ends: Ends, request_: LaunchRequest
) -> None:
    first = await controller.launch(unnamed_of(request_))
    again = await controller.launch(unnamed_of(request_))
    assert (first.found, again.uid, again.found) == (None, first.uid, "launching") and len(ends.begun) == 1


async def test_it_is_found_under_another_uid_and_if_only_a_default_was_named(
    controller: Controller, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(request_)
    other = unnamed_of(request_, model_engine="LLAMA.CPP", model_name="Llama-2-chat", model_size_in_billions=7)
    assert (await controller.launch(other)).uid == "m" and len(ends.begun) == 1


async def test_equal_launches_without_a_uid_at_one_moment_are_one_launch(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    launched = await asyncio.gather(*(controller.launch(unnamed_of(request_)) for _ in range(5)))
    assert {each.uid for each in launched} == {"llama-2-chat"} and len(ends.begun) == len(store.deployments()) == 1


async def test_new_launches_a_copy_with_a_suffix_with_and_without_a_uid(
    controller: Controller, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(request_)
    named = await controller.launch(request_, new=True)
    unnamed = await controller.launch(unnamed_of(request_), new=True)
    assert named.uid.startswith("m-") and unnamed.uid == "llama-2-chat" and len(ends.begun) == 3
    assert (await controller.launch(unnamed_of(request_), new=True)).uid.startswith("llama-2-chat-")


@pytest.mark.parametrize("change", [{"request_limits": 5}, {"quantization": "Q4_K_M"}])
async def test_another_launch_without_a_uid_gets_another_uid(
    controller: Controller, ends: Ends, request_: LaunchRequest, change: dict[str, object]
) -> None:
    """So the first command of the README works beside another quantization of its model."""
    await controller.launch(unnamed_of(request_))
    other = await controller.launch(unnamed_of(request_, **change))
    assert other.uid.startswith("llama-2-chat-") and other.found is None


async def test_another_launch_of_a_uid_is_refused_with_what_differs_and_the_ways_out(
    controller: Controller, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(msgspec.structs.replace(request_, request_limits=5))
    with pytest.raises(Problem, match="request_limits: 5, and 7 in this launch") as refused:
        await controller.launch(msgspec.structs.replace(request_, request_limits=7))
    assert refused.value.code == "model_uid_taken" and refused.value.hint is not None
    assert "--new" in refused.value.hint and "`xinference terminate m`" in refused.value.hint


async def test_the_same_launch_after_replicas_were_added_is_the_same_model(
    controller: Controller, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(unnamed_of(request_))
    deployment = controller.running("llama-2-chat")
    plan = deployment.snapshot.launch
    scaled = plan.with_request(msgspec.structs.replace(plan.request, replica=3))
    deployment._record.change(plan=scaled)
    assert (await controller.launch(unnamed_of(request_))).uid == "llama-2-chat" and len(ends.begun) == 1


async def test_a_failed_model_is_launched_again_by_the_same_launch_under_its_uid(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(request_)
    controller.running("m")._record.change(problem=DIED, ran=True)
    ends.allowed.set()
    again = await controller.launch(unnamed_of(request_))
    assert (again.uid, again.found) == ("m", "failed") and controller.running("m").problem is None
    assert len(store.deployments()) == 1


async def test_an_unloaded_model_is_loaded_by_the_same_launch(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(request_)
    first = controller.running("m")
    first._record.change(unloaded=True, launching=False, ran=True)
    store.set_unloaded("m")

    async def unload(deployment: Deployment, **_: object) -> None:
        return None

    ends.allowed.set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deployment, "unload", unload)
        again = await controller.launch(unnamed_of(request_))
    assert (again.uid, again.found) == ("m", "unloaded")
    assert controller.running("m") is not first and not store.deployments()[0].unloaded
