"""The routes of the catalog: an update is used without a restart, and only with the scope `manage`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from tests.catalog.catalogs import BROKEN, catalog, entry
from xinference.catalog.catalog_version import BUILTIN_VERSION
from xinference.gateway.app import Gateway
from xinference.launch.request import LaunchRequest

TEXT = catalog(entry("new-chat"), entry("new-embedding", model_type="embedding", model_ability=["embed"])).decode()


async def names(client: httpx2.AsyncClient, model_type: str = "LLM") -> set[str]:
    return {each["model_name"] for each in (await client.get(f"/v1/model_registrations/{model_type}")).json()}


async def test_an_update_is_there_without_a_restart_and_is_rolled_back(empty: httpx2.AsyncClient) -> None:
    before = await names(empty)
    body = {"catalog": TEXT, "source": "my.json", "sha256": hashlib.sha256(TEXT.encode()).hexdigest()}
    compared = (await empty.post("/v1/catalog/diff", json=body)).json()
    assert compared["added"] == ["new-chat", "new-embedding"] and await names(empty) == before
    changed = (await empty.post("/v1/catalog/update", json=body)).json()
    assert changed == {"updated": True, "version": "2099.1.1", **compared} | {"updated": True}
    assert await names(empty) == before | {"new-chat"} and "new-embedding" in await names(empty, "embedding")
    assert (await empty.get("/v1/engines/new-chat")).status_code == 200
    assert (await empty.get("/v1/catalog/diff")).json()["added"] == ["new-chat", "new-embedding"]
    listed = (await empty.get("/v1/catalog")).json()
    assert [(each["version"], each["state"], each["source"]) for each in listed["catalogs"]] == [
        ("2099.1.1", "in use", "my.json"),
        (BUILTIN_VERSION, "stored", "built-in"),
    ]
    assert (await empty.post("/v1/catalog/update", json=body)).json()["updated"] is False
    back = (await empty.post("/v1/catalog/rollback")).json()
    assert back["removed"] == ["new-chat", "new-embedding"] and await names(empty) == before
    assert (await empty.post("/v1/catalog/rollback")).status_code == 409


@pytest.mark.parametrize("name", [name for name, (text, _) in BROKEN.items() if len(text) < 1 << 20])
async def test_a_broken_update_changes_nothing(empty: httpx2.AsyncClient, name: str) -> None:
    await empty.post("/v1/catalog/update", json={"catalog": TEXT})
    before = await names(empty), (await empty.get("/v1/catalog")).json()
    text = BROKEN[name][0].decode("utf-8", "replace")
    answer = await empty.post("/v1/catalog/update", json={"catalog": text})
    if name != "not UTF-8":  # there is no other text in JSON
        assert answer.status_code in (400, 409) and answer.json()["problem"]["code"] in ("bad_catalog", "catalog_older")
        assert (await names(empty), (await empty.get("/v1/catalog")).json()) == before


async def test_a_hash_that_is_another_one_is_refused(empty: httpx2.AsyncClient) -> None:
    answer = await empty.post("/v1/catalog/update", json={"catalog": TEXT, "sha256": "0" * 64})
    assert answer.status_code == 400 and "sha256" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/models/update_type", {"model_type": "LLM"}, 400),
        ("/v1/models/update_type", {"model_type": "LLM", "source": "some-package"}, 503),
        ("/v1/models/update_type", {"model_type": "image", "source": "some-package"}, 400),
        ("/v1/models/update_type", {}, 400),
        ("/v1/models/update_spec", {"model_type": "LLM", "model_name": "x", "source": "https://x.test/c"}, 400),
        ("/v1/models/update_spec", {"model_type": "LLM"}, 400),
        ("/v1/catalog/update", {}, 400),
        ("/v1/catalog/update", {"source": "/etc/passwd"}, 400),
        ("/v1/catalog/update", {"source": "file:///etc/passwd", "sha256": "0" * 64}, 503),
        ("/v1/catalog/update", {"source": "-r requirements.txt"}, 400),
    ],
)
async def test_a_source_that_can_not_be_used_is_a_problem(
    empty: httpx2.AsyncClient, path: str, body: dict[str, str], status: int
) -> None:
    answer = await empty.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert (await empty.get("/v1/catalog")).json()["version"] == BUILTIN_VERSION


async def test_the_families_of_one_type_or_one_name_are_taken(app: FastAPI, empty: httpx2.AsyncClient) -> None:
    body = {"catalog": TEXT, "model_type": "embedding"}
    assert (await empty.post("/v1/catalog/update", json=body)).json()["added"] == ["new-embedding"]
    body = {"catalog": TEXT, "model_name": "NEW-chat"}
    assert (await empty.post("/v1/catalog/update", json=body)).json()["added"] == ["new-chat"]
    unknown = await empty.post("/v1/catalog/update", json={"catalog": TEXT, "model_type": "image"})
    assert unknown.status_code == 400


async def test_a_launch_keeps_its_family_after_a_rollback(app: FastAPI, empty: httpx2.AsyncClient) -> None:
    await empty.post("/v1/catalog/update", json={"catalog": TEXT})
    resolver = app.state.controller.planner.resolver
    request = (await resolver.resolve(LaunchRequest(model_name="New-Chat"))).request
    assert request.family is not None and request.family.model_name == "new-chat"
    assert (await resolver.resolve(LaunchRequest(model_name="qwen3"))).request.family is None
    await empty.post("/v1/catalog/rollback")
    assert (await resolver.resolve(request)).request == request


@pytest.mark.parametrize("scope", ["use", "monitor"])
async def test_only_manage_may_see_or_change_it(app: FastAPI, scope: str) -> None:
    gateway = Gateway(app.state.controller, app.state.settings, app, app.state.keys, is_owner=lambda _: True)
    transport = httpx2.ASGITransport(gateway, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        key = (await client.post("/v1/keys", json={"name": "k", "scopes": [scope]})).json()["key"]
        client.headers["Authorization"] = f"Bearer {key}"
        for method, path in (
            ("GET", "/v1/catalog"),
            ("GET", "/v1/catalog/diff"),
            ("POST", "/v1/catalog/diff"),
            ("POST", "/v1/catalog/update"),
            ("POST", "/v1/catalog/rollback"),
            ("POST", "/v1/models/update_type"),
            ("POST", "/v1/models/update_spec"),
        ):
            answer = await client.request(method, path, json={} if method == "POST" else None)
            assert answer.status_code == 403, path
    await gateway.close()


async def test_an_update_is_stored_for_the_next_server(app: FastAPI, empty: httpx2.AsyncClient, tmp_path: Path) -> None:
    await empty.post("/v1/catalog/update", json={"catalog": TEXT})
    controller = app.state.controller
    controller.registrations.use_catalog({}, {})
    controller.catalog.load()
    assert "new-chat" in controller.families


async def test_what_fits_is_listed_by_type_and_name(empty: httpx2.AsyncClient) -> None:
    every = (await empty.get("/v1/fits")).json()
    assert {each["model_type"] for each in every} == {"LLM", "embedding", "rerank"}
    some = (await empty.get("/v1/fits", params={"model_type": "embedding", "part": "BGE-M3"})).json()
    assert {each["model_name"] for each in some} == {"bge-m3"} and {each["model_type"] for each in some} == {
        "embedding"
    }
    assert all(each["fits"] in ("now", "after_unloading", "never") for each in every)
    assert (await empty.get("/v1/fits", params={"model_type": "image"})).status_code == 400
    await empty.post("/v1/catalog/update", json={"catalog": TEXT})
    assert (await empty.get("/v1/fits", params={"part": "new-chat"})).json() != []
