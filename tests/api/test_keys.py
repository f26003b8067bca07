"""Keys over REST: the gateway in front of the whole management API, as the server has them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from tests.api.application import application
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.errors import Problem
from xinference.gateway.app import Gateway
from xinference.gateway.auth.permissions import OPEN, OWN_CHANGES, Need, required_access
from xinference.gateway.routes import DATA_PATHS
from xinference.keys.keyring import Keyring
from xinference.store.database import Store

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture
def stopped() -> list[bool]:
    """Grows when somebody stops the server."""
    return []


@pytest.fixture
async def app(tmp_path: Path, stopped: list[bool]) -> AsyncIterator[FastAPI]:
    settings = Settings(home=tmp_path / "home", offline=True)
    store = Store(settings.home / "x.db")
    controller = Controller(settings, store)
    yield application(controller, settings, Keyring(store), lambda: stopped.append(True))
    await controller.close("stop")
    store.close()


@asynccontextmanager
async def client_of(app: FastAPI, *, is_owner: bool) -> AsyncIterator[httpx2.AsyncClient]:
    gateway = Gateway(app.state.controller, app.state.settings, app, app.state.keys, is_owner=lambda scope: is_owner)
    transport = httpx2.ASGITransport(gateway, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client
    await gateway.close()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A program of the server's own user."""
    async with client_of(app, is_owner=True) as client:
        yield client


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A program of another user of the machine."""
    async with client_of(app, is_owner=False) as client:
        yield client


def bearer(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['key']}"}


async def made(client: httpx2.AsyncClient, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/keys", json=fields, headers=headers)
    assert answer.status_code == 200, answer.text
    key: dict[str, Any] = answer.json()
    return key


def every_route(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Each method on each path that the server has a route for, and the methods beside it."""
    routers = [app, *(found for route in app.routes if (found := getattr(route, "original_router", None)))]
    written = {getattr(route, "path", "") for router in routers for route in router.routes}
    paths = {re.sub(r"\{[^}]*\}", "x", path) for path in written | set(app.openapi()["paths"])} | set(DATA_PATHS)
    assert {"/v1/models/x/events", "/v1/clusters", "/v1/keys/x", "/openapi.json"} <= paths
    for path in sorted(paths | {"/health", "/anthropic/v1/models", "/", "/nowhere", "/metrics"}):
        for method in METHODS:
            yield method, path


@pytest.mark.thorough
async def test_without_a_key_nothing_but_the_three_open_routes_answers(
    app: FastAPI, client: httpx2.AsyncClient, stopped: list[bool]
) -> None:
    await made(client, name="first")
    for method, path in every_route(app):
        is_open = ("GET" if method == "HEAD" else method, path) in OPEN
        for headers in ({}, {"Authorization": "Bearer sk-xinf-wrong"}, {"x-api-key": "wrong"}):
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code != 401 or path == "/token") if is_open else (answer.status_code == 401), (
                method,
                path,
            )
    assert stopped == [] and len(app.state.keys.all()) == 1


async def test_a_key_for_use_changes_nothing(app: FastAPI, client: httpx2.AsyncClient, stopped: list[bool]) -> None:
    key = await made(client, name="first")
    for method, path in every_route(app):
        if method not in ("GET", "HEAD", "OPTIONS") and path not in DATA_PATHS and (method, path) not in OPEN:
            answer = await client.request(method, path, headers=bearer(key), json={})
            # What a key may do for itself: end its requests and its session, log its browser in, delete its responses.
            own = (method == "POST" and path.endswith("/abort")) or (method, path) in OWN_CHANGES
            own = own or path.startswith("/v1/responses/")
            assert answer.status_code == 403 or own, (method, path)
            assert own or "Not enough permissions" in answer.text
    assert (await client.get("/v1/keys", headers=bearer(key))).status_code == 403
    assert stopped == [] and len(app.state.keys.all()) == 1


@pytest.mark.thorough
async def test_without_keys_another_user_gets_nothing_that_needs_manage(
    app: FastAPI, stranger: httpx2.AsyncClient, stopped: list[bool]
) -> None:
    for method, path in every_route(app):
        if required_access(method, path).need is not Need.MANAGE:
            continue
        for headers in ({}, {"Authorization": "Bearer sk-xinf-wrong"}, {"x-xinference-owner": "1"}):
            answer = await stranger.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
    assert stopped == [] and app.state.keys.all() == []


async def test_without_keys_another_user_may_use_and_read_but_no_path_of_this_machine(
    app: FastAPI, stranger: httpx2.AsyncClient, client: httpx2.AsyncClient
) -> None:
    for path in ("/v1/models", "/v1/models/instances", "/status", "/v1/engines/llama-2-chat", "/v1/cluster/auth"):
        assert (await stranger.get(path)).status_code == 200, path
    assert (await stranger.get("/v1/engines/org/repo")).status_code == 403
    assert (await stranger.get("/v1/engines//etc/passwd")).status_code == 401
    assert (await stranger.post("/v1/chat/completions", json={"model": "x", "messages": []})).status_code != 401


async def test_without_keys_the_owners_key_works_for_another_user_who_can_read_it(
    app: FastAPI, stranger: httpx2.AsyncClient
) -> None:
    owner = {"Authorization": f"Bearer {app.state.keys.open_for_owner()}"}
    assert (await stranger.get("/v1/keys", headers=owner)).json() == []
    assert (await stranger.get("/v1/keys")).status_code == 401


async def test_auth_is_off_until_the_first_key_and_on_from_then_even_when_it_is_revoked(
    client: httpx2.AsyncClient,
) -> None:
    assert (await client.get("/v1/cluster/auth")).json() == {"auth": False}
    assert (await client.get("/v1/models")).status_code == 200
    manager = await made(client, name="boss", scopes=["manage"])
    assert (await client.get("/v1/cluster/auth")).json() == {"auth": True}
    assert (await client.get("/v1/models")).status_code == 401
    assert (await client.delete("/v1/keys/boss", headers=bearer(manager))).json()["revoked"] is not None
    assert (await client.get("/v1/models", headers=bearer(manager))).status_code == 401
    assert (await client.get("/v1/cluster/auth")).json() == {"auth": True}


async def test_a_manager_lists_makes_and_removes_keys_and_the_secret_is_told_once(client: httpx2.AsyncClient) -> None:
    manager = await made(client, name="boss", scopes=["manage"])
    key = await made(client, bearer(manager), name="a", models=["m"], expires_in=60, tokens_per_minute=7)
    listed = await client.get("/v1/keys", headers=bearer(manager))
    assert [entry["name"] for entry in listed.json()] == ["boss", "a"]
    assert key["key"] not in listed.text and manager["key"] not in listed.text
    assert {**listed.json()[1], "key": key["key"], "unknown_models": ["m"]} == key
    changes = {"models": None, "tokens_per_minute": None, "scopes": ["monitor"]}
    changed = await client.patch("/v1/keys/a", json=changes, headers=bearer(manager))
    expected = listed.json()[1] | changes | {"unknown_models": []}
    assert (changed.status_code, changed.json() | {"last_used": None}) == (200, expected | {"last_used": None})
    refused: list[dict[str, Any]] = [{"scopes": []}, {"models": []}, {"other": 1}, {"tokens_per_minute": 0}]
    for wrong in refused:
        assert (await client.patch("/v1/keys/a", json=wrong, headers=bearer(manager))).status_code == 400
    assert (await client.patch("/v1/keys/nobody", json={}, headers=bearer(manager))).status_code == 404
    assert (await client.delete("/v1/keys", headers=bearer(manager))).json() == {"removed": 2}
    assert (await client.get("/v1/keys")).json() == []


async def test_a_key_of_certain_models_is_told_nothing_of_others(app: FastAPI, client: httpx2.AsyncClient) -> None:
    secret = BrokenDeployment("secret-model", Problem("x", "y", status=500), 0.0)
    app.state.controller._registry.add(secret)
    app.state.controller._registry.publish()
    all_models = await made(client, name="all")
    owner = {"Authorization": f"Bearer {app.state.keys.open_for_owner()}"}
    one = await made(client, owner, name="one", models=["absent"])
    for path in ("/v1/models/absent", "/v1/models/absent/events", "/v1/models/absent/replicas", "/v1/models/instances"):
        told = await client.get(path, headers=bearer(one))
        assert "secret-model" not in told.text, (path, told.text)
        told_all = await client.get(path, headers=bearer(all_models))
        assert "secret-model" in told_all.text or told_all.status_code == 200, (path, told_all.text)
    assert (await client.get("/v1/models/secret-model", headers=bearer(one))).status_code == 403


async def test_the_owners_key_works_and_is_not_listed(app: FastAPI, client: httpx2.AsyncClient) -> None:
    await made(client)
    owner = {"Authorization": f"Bearer {app.state.keys.open_for_owner()}"}
    assert len((await client.get("/v1/keys", headers=owner)).json()) == 1
    assert (await client.delete("/v1/keys/owner", headers=owner)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["admin"]},
        {"scopes": []},
        {"name": "a b"},
        {"name": ""},
        {"models": []},
        {"models": ["x\ny"]},
        {"expires_in": -1},
        {"requests_per_minute": 0},
        {"tokens_per_minute": 10**30},
        {"requests_in_flight": 0},
        {"max_output_tokens": 0},
        {"max_request_seconds": 0},
        {"unknown": 1},
        [],
    ],
)
async def test_what_cant_be_a_key_is_400(client: httpx2.AsyncClient, body: Any) -> None:
    answer = await client.post("/v1/keys", json=body)
    assert answer.status_code == 400 and answer.json()["detail"]
    assert (await client.get("/v1/cluster/auth")).json() == {"auth": False}


@pytest.mark.parametrize("as_form", [True, False])
async def test_a_login_with_a_keys_name_or_id_gives_the_key_as_token(client: httpx2.AsyncClient, as_form: bool) -> None:
    key = await made(client, name="a")
    for username in ("a", key["id"]):
        fields = {"username": username, "password": key["key"]}
        extra = {"grant_type": "password"}
        answer = await (client.post("/token", data=fields | extra) if as_form else client.post("/token", json=fields))
        assert answer.status_code == 200
        assert answer.json() == {
            "access_token": key["key"],
            "token_type": "bearer",
            "refresh_token": key["key"],
        }
        assert answer.headers["cache-control"] == "no-store"
        token = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert (await client.get("/v1/models", headers=token)).status_code == 200


async def test_every_wrong_login_is_the_same_401(app: FastAPI, client: httpx2.AsyncClient) -> None:
    key = await made(client, name="a")
    manager = {"Authorization": f"Bearer {app.state.keys.open_for_owner()}"}
    other = await made(client, manager, name="gone")
    await client.delete("/v1/keys/gone", headers=manager)
    wrong = [("a", "x"), ("b", key["key"]), ("", ""), ("gone", other["key"]), ("a\ud800", key["key"]), ("a", "\ud800")]
    answers = [
        await client.post(
            "/token",
            content=json.dumps({"username": username, "password": password}).encode(),
            headers={"content-type": "application/json"},
        )
        for username, password in wrong
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["detail"] for answer in answers} == {"Incorrect username or password"}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "JSON"),
        (b"[]", "username"),
        (b'{"username":"a"}', "password"),
        (b'{"username":1,"password":2}', "username"),
    ],
)
async def test_a_login_without_its_fields_is_400_and_named(client: httpx2.AsyncClient, body: bytes, said: str) -> None:
    answer = await client.post("/token", content=body)
    assert answer.status_code == 400 and said in answer.json()["detail"]


async def test_an_endless_login_is_413(client: httpx2.AsyncClient) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 1000

    assert (await client.post("/token", content=pieces())).status_code == 413
    assert sent < 50


async def test_a_wrong_key_asks_the_store_nothing(app: FastAPI, client: httpx2.AsyncClient) -> None:
    await made(client)
    app.state.keys._rows._store.close()  # a read or a write would raise from here on
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/models"), ("POST", "/v1/chat/completions")):
        answer = await client.request(method, path, headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 401
    login = await client.post("/token", json={"username": "a", "password": "b"})
    assert login.status_code == 401
