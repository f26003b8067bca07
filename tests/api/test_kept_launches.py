"""Autostart: the launches that the server keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from fastapi import FastAPI

from tests.formats.gguf_writer import Gguf
from xinference.api.launch_body import LaunchBody
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.control.kept_launches import launch_fields
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store

Json = dict[str, Any]
AUTOSTART = "/v1/autostart/models"


@pytest.fixture
def controller(app: FastAPI) -> Controller:
    controller: Controller = app.state.controller
    return controller


async def restored(controller: Controller, tmp_path: Path, uid: str = "mine") -> None:
    """A deployment of a stored launch that cannot be started, because its option is refused."""
    request = LaunchRequest(
        model_name="smollm2-instruct",
        model_uid=uid,
        model_engine="llama.cpp",
        model_format="ggufv2",
        quantization="Q4_1",
        model_path=str(Gguf().write(tmp_path / "m.gguf")),
        options={"verbosity": 9},
    )
    controller._store.add_deployment(uid, msgspec.json.encode(request).decode(), 1000.0)
    await controller.start()


async def get(client: httpx2.AsyncClient, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_server_that_keeps_nothing_has_empty_lists(empty: httpx2.AsyncClient) -> None:
    assert await get(empty, AUTOSTART) == {"models": []}
    assert await get(empty, f"{AUTOSTART}/summary") == {"models": []}
    assert (await empty.delete(f"{AUTOSTART}/nobody")).json() == {"models": []}


@pytest.mark.process
async def test_every_kept_launch_starts_with_the_server(
    empty: httpx2.AsyncClient, controller: Controller, tmp_path: Path
) -> None:
    await restored(controller, tmp_path)
    (entry,) = (await get(empty, AUTOSTART))["models"]
    assert entry["enabled"] is True and entry["state"] == {"instance_status": "ERROR"}
    assert entry["launch"]["model_uid"] == "mine" and entry["launch"]["verbosity"] == 9
    assert entry["launch"]["quantization"] == "Q4_1" and "family" not in entry["launch"]
    assert await get(empty, f"{AUTOSTART}/summary") == {"models": [{"enabled": True, "model_uid": "mine"}]}
    assert entry["updated_at"] == "1970-01-01T00:16:40Z"


@pytest.mark.process
async def test_a_model_that_is_removed_runs_on_and_the_next_server_does_not_restore_it(
    empty: httpx2.AsyncClient, controller: Controller, tmp_path: Path
) -> None:
    await restored(controller, tmp_path)
    removed = await empty.delete(f"{AUTOSTART}/mine")
    assert (removed.status_code, removed.json()) == (200, {"models": []})
    assert [each["model_uid"] for each in await get(empty, "/v1/models/instances")] == ["mine"]
    assert [row.wanted for row in controller._store.deployments()] == [False]

    again = await empty.post(AUTOSTART, json={"enabled": False, "launch": {"model_name": "x", "model_uid": "mine"}})
    assert (again.status_code, again.json()) == (200, {"models": []})
    controller.set_restored("mine", restored=True)
    assert (await get(empty, f"{AUTOSTART}/summary"))["models"] == [{"enabled": True, "model_uid": "mine"}]


@pytest.mark.process
async def test_the_next_server_has_only_what_is_restored(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", offline=True)
    store = Store(settings.home / "x.db")
    first = Controller(settings, store)
    await restored(first, tmp_path)
    first.set_restored("mine", restored=False)
    await first.close("detach")
    following = Controller(settings, store)
    try:
        await following.start()
        assert following.deployments() == [] and store.deployments() == []
    finally:
        await following.close("stop")
        store.close()


@pytest.mark.parametrize(
    ("entry", "status", "said"),
    [
        ({}, 400, "launch is required"),
        ({"launch": {"model_name": "no-such-model"}}, 400, "no-such-model"),
        ({"model_name": "no-such-model", "priority": 1, "state": {}}, 400, "no-such-model"),
        ({"enabled": False, "launch": {"model_name": "m", "model_uid": "nobody"}}, 404, "nobody"),
        ({"launch": {"replica": 1}}, 400, "model_name"),
    ],
)
async def test_an_entry_that_names_no_launch_is_refused(
    empty: httpx2.AsyncClient, entry: Json, status: int, said: str
) -> None:
    answer = await empty.post(AUTOSTART, json=entry)
    assert answer.status_code == status and said in answer.json()["detail"], answer.text


def test_the_fields_of_a_kept_launch_are_those_of_the_same_launch() -> None:
    body = {
        "model_name": "llama-2-chat",
        "model_uid": "m",
        "model_size_in_billions": "1_8",
        "gpu_idx": [0, 1],
        "replica": 2,
        "envs": {"OMP_NUM_THREADS": "1"},
        "on_demand": True,
        "ttl": 5.0,
        "n_ctx": 512,
    }
    request = LaunchBody.model_validate(body).request()
    fields = launch_fields(request)
    assert LaunchBody.model_validate(fields).request() == request
    assert fields.keys() <= body.keys() | {"model_type"}
    path = msgspec.structs.replace(request, asked_name="/w/m.gguf", model_name="derived")
    assert launch_fields(path)["model_name"] == "/w/m.gguf"
