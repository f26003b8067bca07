"""The cache routes over a controller with real hubs, which fetch from loopback."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.application import application
from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.fakes.hub.repositories import Fault, repository
from tests.support.polling import until_async
from xinference.catalog.models import ModelFamily, ModelSpec, Source
from xinference.config import Settings
from xinference.control import controller as controller_module
from xinference.control.controller import Controller
from xinference.keys.keyring import Keyring
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store

CACHE = "/v1/cache/models"
#: The numbers of a ggmlv3 file, which a plan reads, and then anything.
BYTES = b"tjgg" + struct.pack("<8I", 3, 32, 64, 256, 4, 2, 16, 2) + bytes(range(256)) * 4000
VERSION = "tiny--1B--ggmlv3--q4_0"
NAMED: dict[str, Any] = {"model_name": "tiny", "model_format": "ggmlv3", "quantization": "q4_0"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    files = {"tiny.q4_0.bin": BYTES, "tiny.q4_1.bin": BYTES}
    with serve(LoopbackHub([repository("o/tiny", files, ("main",))])) as hub:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
        yield hub


@pytest.fixture
async def controller(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Controller]:
    spec = ModelSpec(
        model_format="ggmlv3",
        model_size_in_billions=1,
        quantizations=("q4_0", "q4_1"),
        sources=(Source(hub="huggingface", model_id="o/tiny", file="tiny.{quantization}.bin"),),
    )
    family = ModelFamily(
        model_name="tiny", context_length=8, model_lang=("en",), model_ability=("chat",), model_specs=(spec,)
    )
    monkeypatch.setattr(controller_module, "builtin_families", lambda: {"tiny": family})
    store = Store(tmp_path / "home" / "x.db")
    controller = Controller(Settings(home=tmp_path / "home"), store)
    yield controller
    await controller.close("stop")
    store.close()


@pytest.fixture
async def client(controller: Controller, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    app = application(controller, Settings(), Keyring(Store(tmp_path / "keys.db")))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as c:
        yield c


async def listed(client: httpx2.AsyncClient) -> Any:
    """The cached versions, once there is one."""

    async def is_listed() -> Any:
        return (await client.get(CACHE)).json()["list"]

    await until_async("a version is listed", is_listed)
    return await is_listed()


async def last_event(client: httpx2.AsyncClient) -> dict[str, Any]:
    answer = await client.get(f"{CACHE}/{VERSION}/events", params={"follow": "true"})
    lines = [line for line in answer.text.splitlines() if line]
    event: dict[str, Any] = json.loads(lines[-1].removeprefix("data: "))
    return event


async def test_a_version_is_downloaded_listed_and_removed(client: httpx2.AsyncClient) -> None:
    assert (await client.get(CACHE)).json() == {"list": []}
    assert (await client.post(CACHE, json=NAMED)).json() == {"model_version": VERSION}
    ready = await last_event(client)
    assert ready["event_type"] == "READY"
    path = Path(ready["model"]["path"])
    assert path.read_bytes() == BYTES and ready["model"]["size_bytes"] == len(BYTES)
    (entry,) = (await client.get(CACHE, params={"model_name": "TINY"})).json()["list"]
    assert (entry["path"], entry["complete"], entry["hub"]) == (str(path), True, "huggingface")
    files = (await client.get(f"{CACHE}/files", params={"model_version": VERSION})).json()
    assert (files["paths"], files["worker_ip"], files["shared_with"]) == ([str(path)], None, [])
    freed = await client.delete(CACHE, params={"model_version": VERSION})
    assert freed.json() == {"result": True, "freed_bytes": len(BYTES)}
    assert not path.exists() and (await client.get(CACHE)).json() == {"list": []}


async def test_the_events_of_a_download_are_those_of_the_last_one(client: httpx2.AsyncClient) -> None:
    for _ in range(2):
        await client.post(CACHE, json=NAMED)
        await last_event(client)
    kept = (await client.get(f"{CACHE}/{VERSION}/events")).json()
    assert [event["event_type"] for event in kept] == ["INFO", "READY"]
    assert "huggingface (o/tiny)" in kept[0]["event_content"]


async def test_what_can_not_be_named_is_refused(client: httpx2.AsyncClient) -> None:
    assert (
        (await client.post(CACHE, json={"model_name": "tinny"})).json()["problem"]["hint"].startswith("Did you mean t")
    )
    assert (await client.post(CACHE, json=NAMED | {"model_engine": "vLLM"})).json()["problem"]["code"] == (
        "engine_unsupported"
    )
    assert (await client.post(CACHE, json=NAMED | {"n_ctx": 1})).status_code == 400
    for method, path in (("GET", "/files"), ("DELETE", "")):
        answer = await client.request(method, CACHE + path, params={"model_version": "tiny"})
        assert (answer.status_code, answer.json()["problem"]["code"]) == (404, "not_cached")
    for method, path in (("GET", "/tiny/events"), ("DELETE", "/tiny/download")):
        answer = await client.request(method, CACHE + path)
        assert (answer.status_code, answer.json()["problem"]["code"]) == (404, "download_not_found")


async def test_a_download_that_fails_says_why(client: httpx2.AsyncClient, hub: LoopbackHub) -> None:
    hub.faults["tiny.q4_0.bin"] = Fault(times=99, flip_at=5)
    await client.post(CACHE, json=NAMED)
    failed = await last_event(client)
    assert (failed["event_type"], failed["problem"]["code"]) == ("FAILED", "hash_mismatch")
    assert failed["problem"]["stage"] == "fetch"
    assert (await last_event(client))["problem"] == failed["problem"]


async def test_a_running_download_is_cancelled_and_keeps_its_files_from_removal(
    client: httpx2.AsyncClient, hub: LoopbackHub
) -> None:
    hub.faults["tiny.q4_0.bin"] = Fault(times=99, seconds_a_chunk=0.05)
    await client.post(CACHE, json=NAMED)
    assert (await client.post(CACHE, json=NAMED)).json() == {"model_version": VERSION}
    found = await listed(client)
    assert (found[0]["model_version"], found[0]["complete"]) == (VERSION, False)
    refused = await client.delete(CACHE, params={"model_version": VERSION})
    assert (refused.status_code, refused.json()["problem"]["code"]) == (409, "in_use")
    assert (await client.delete(f"{CACHE}/{VERSION}/download")).status_code == 200
    assert (await last_event(client))["problem"]["code"] == "cancelled"
    assert (await client.delete(CACHE, params={"model_version": VERSION})).json()["result"] is True


async def test_a_launch_waits_for_the_download_of_its_version_and_can_be_cancelled(
    client: httpx2.AsyncClient, controller: Controller, hub: LoopbackHub
) -> None:
    hub.faults["tiny.q4_0.bin"] = Fault(times=99, seconds_a_chunk=0.1)
    await client.post(CACHE, json=NAMED)
    await listed(client)
    uid = (await controller.launch(LaunchRequest(**NAMED))).uid
    await asyncio.sleep(0.3)
    whole = [path for _, path, ranges in hub.counters.of("tiny.q4_0.bin") if not ranges]
    assert len(whole) <= 2  # the redirect and the bytes, once
    await asyncio.wait_for(controller.terminate(uid), 5)
    assert (await last_event(client))["event_type"] == "READY"


async def test_a_download_is_paused_and_continued_by_the_names_of_newer_clients(
    client: httpx2.AsyncClient, hub: LoopbackHub
) -> None:
    hub.faults["tiny.q4_0.bin"] = Fault(times=99, seconds_a_chunk=0.05)
    await client.post(CACHE, json=NAMED)
    await listed(client)
    (entry,) = (await client.get("/v1/downloads")).json()["list"]
    assert (entry["cache_uid"], entry["stage"], entry["model_name"]) == (VERSION, "downloading", "tiny")
    assert 0 <= entry["progress"] < 1 and entry["resumable"] is False
    assert (await client.post(f"/v1/downloads/{VERSION}/pause")).status_code == 200
    (paused,) = (await client.get("/v1/downloads")).json()["list"]
    assert (paused["stage"], paused["resumable"], paused["error"]) == ("paused", True, None)
    hub.faults.clear()
    assert (await client.post(f"/v1/downloads/{VERSION}/resume")).status_code == 200
    assert (await last_event(client))["event_type"] == "READY"
    assert (await client.get("/v1/downloads")).json() == {"list": []}
    assert (await client.get(f"{CACHE}/{VERSION}/progress")).json()["progress"] == 1
    assert (await client.delete(f"/v1/downloads/{VERSION}")).status_code == 200
    assert (await client.get(f"{CACHE}/{VERSION}/progress")).status_code == 404
