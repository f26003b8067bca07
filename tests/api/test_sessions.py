"""The routes of sessions, called in process: log in by key and by code, who am I, log out."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from xinference.api.login_delay import FREE_FAILURES, WAIT_SECONDS, WINDOW_SECONDS, LoginDelay
from xinference.api.routes import sessions as routes
from xinference.keys.key import Key
from xinference.keys.keyring import Keyring
from xinference.keys.new_key import NewKey
from xinference.keys.visibility import FROM_OWNER, SCOPE_KEY

PAGE = {"X-Xinference": "1"}


@pytest.fixture(autouse=True)
def fresh_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "delay", LoginDelay())


@pytest.fixture
def keys(app: FastAPI) -> Keyring:
    ring: Keyring = app.state.keys
    return ring


def client_of(app: FastAPI, key: Key | None = None, *, is_owner: bool = False) -> httpx2.AsyncClient:
    """A client whose requests the gateway has admitted with `key`."""

    async def admitted(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {SCOPE_KEY: key, FROM_OWNER: is_owner}, receive, send)

    return httpx2.AsyncClient(transport=httpx2.ASGITransport(admitted), base_url="http://test")


async def log_in(app: FastAPI, body: Any, headers: dict[str, str] = PAGE) -> httpx2.Response:
    async with client_of(app) as client:
        return await client.post("/v1/sessions", json=body, headers=headers)


async def test_a_key_begins_a_session_whose_cookie_no_script_reads(app: FastAPI, keys: Keyring) -> None:
    key, secret = keys.create(NewKey("a"))
    said = await log_in(app, {"key": secret})
    assert said.status_code == 200
    assert said.json() == {
        "id": key.key_id,
        "name": "a",
        "scopes": ["use"],
        "models": None,
        "is_session": True,
        "needs_key": True,
        "expires": pytest.approx(key.created + 7 * 24 * 3600, abs=60),
    }
    cookie, *rules = said.headers["set-cookie"].split("; ")
    name, _, value = cookie.partition("=")
    assert name == "xinference_9997" and set(rules) == {"Max-Age=604800", "Path=/", "HttpOnly", "SameSite=Strict"}
    session = keys.table.find_session(value.encode())
    assert session is not None and session.key_id == key.key_id
    assert said.headers["cache-control"] == "no-store" and value not in said.text and secret not in said.text


async def test_the_cookie_of_a_page_by_tls_is_never_sent_without_it(app: FastAPI, keys: Keyring) -> None:
    _, secret = keys.create(NewKey())
    said = await log_in(app, {"key": secret}, PAGE | {"origin": "https://ai.example.org"})
    assert "Secure" in said.headers["set-cookie"].split("; ")


async def test_a_code_logs_in_once(app: FastAPI, keys: Keyring) -> None:
    key, _ = keys.create(NewKey("a", ("manage",)))
    async with client_of(app, key) as client:
        made = (await client.post("/v1/sessions/codes")).json()
    assert made["expires_in"] == 60
    assert (await log_in(app, {"code": made["code"]})).json()["name"] == "a"
    again = await log_in(app, {"code": made["code"]})
    assert (again.status_code, again.json()["problem"]["code"]) == (401, "wrong_login")
    assert "set-cookie" not in again.headers


async def test_a_code_of_a_key_that_was_revoked_since_is_wrong(app: FastAPI, keys: Keyring) -> None:
    key, _ = keys.create(NewKey())
    code = keys.sessions.new_code(key)
    keys.revoke(key.key_id)
    assert (await log_in(app, {"code": code})).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"key": "wrong"}, 401),
        ({"key": ""}, 401),
        ({"code": "wrong"}, 401),
        ({"key": "\\ud800"}, 401),
        ({"key": "x" * 2000}, 400),
        ({}, 400),
        ({"key": "a", "code": "b"}, 400),
        ({"key": 1}, 400),
        ({"user": "a"}, 400),
    ],
)
async def test_a_wrong_login_gets_no_cookie(app: FastAPI, keys: Keyring, body: Any, status: int) -> None:
    keys.create(NewKey())
    said = await log_in(app, body)
    assert said.status_code == status and "set-cookie" not in said.headers


async def test_expired_keys_and_sessions_begin_no_session(app: FastAPI, keys: Keyring) -> None:
    _, secret = keys.create(NewKey(expires_in=0.000001))
    assert (await log_in(app, {"key": secret})).status_code == 401
    other, _ = keys.create(NewKey())
    session_secret = keys.sessions.begin(other)
    assert (await log_in(app, {"key": session_secret})).status_code == 401


@pytest.mark.parametrize("headers", [{}, {"X-Xinference": "0"}])
async def test_a_page_of_another_site_logs_nobody_in(app: FastAPI, keys: Keyring, headers: dict[str, str]) -> None:
    _, secret = keys.create(NewKey())
    said = await log_in(app, {"key": secret}, headers)
    assert (said.status_code, said.json()["problem"]["code"]) == (403, "cross_site_request")


async def test_logging_out_ends_the_session_and_removes_the_cookie(app: FastAPI, keys: Keyring) -> None:
    key, _ = keys.create(NewKey())
    secret = keys.sessions.begin(key).encode()
    async with client_of(app, keys.table.find_session(secret)) as client:
        assert (await client.get("/v1/sessions/current")).json()["is_session"]
        said = await client.delete("/v1/sessions/current")
    assert said.json() == {"ended": True}
    assert said.headers["set-cookie"].startswith("xinference_9997=; Max-Age=0; ")
    assert keys.table.find_session(secret) is None


async def test_without_keys_the_own_user_gets_a_code_of_the_owner_and_others_get_none(
    app: FastAPI, keys: Keyring
) -> None:
    keys.open_for_owner()
    async with client_of(app, is_owner=True) as client:
        code = (await client.post("/v1/sessions/codes")).json()["code"]
        assert (await client.get("/v1/sessions/current")).json()["scopes"] == ["manage", "use"]
    assert (await log_in(app, {"code": code})).json()["id"] == "owner"
    anyone = Key("anyone", "anyone", b"", frozenset({"use"}))
    for key in (None, anyone):
        async with client_of(app, key) as client:
            assert (await client.post("/v1/sessions/codes")).status_code == 403


async def test_failed_logins_are_logged_without_the_key(
    app: FastAPI, keys: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    keys.create(NewKey())
    await log_in(app, {"key": "sk-xinf-almost"})
    assert "a login from" in caplog.text and "almost" not in caplog.text


def test_the_sixth_failure_within_a_minute_waits() -> None:
    now = 0.0
    delay = LoginDelay(lambda: now)
    for _ in range(FREE_FAILURES):
        assert delay.seconds("a") == 0
        delay.note_failure("a")
    assert (delay.seconds("a"), delay.seconds("b")) == (WAIT_SECONDS, 0)
    now += WINDOW_SECONDS
    assert delay.seconds("a") == 0


def test_the_memory_of_failures_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xinference.api.login_delay.MAX_ADDRESSES", 3)
    delay = LoginDelay(lambda: 0.0)
    for n in range(10):
        for _ in range(FREE_FAILURES):
            delay.note_failure(str(n))
    assert [delay.seconds(str(n)) > 0 for n in range(10)] == [False] * 7 + [True] * 3


async def test_the_log_names_the_key_that_stops_the_server(
    app: FastAPI, keys: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    key, _ = keys.create(NewKey("deploy", scopes=("manage",)))
    for sender, said in (
        (key, "stop requested by the key deploy"),
        (None, "stop requested by a request without a key"),
    ):
        async with client_of(app, sender) as client:
            assert (await client.delete("/v1/clusters")).status_code == 200
        assert said in caplog.text
