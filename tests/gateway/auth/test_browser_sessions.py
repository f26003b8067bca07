"""Requests with the cookie of a session, as the own page, pages of other sites, and programs send them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.gateway.auth.test_authentication import CountedKeys, busy_router
from tests.gateway.harness import Said, call, gateway_of
from xinference.keys.key import Key
from xinference.keys.secret import digest
from xinference.keys.table import table_of

KEY = Key("k1", "k", digest(b"the key"), frozenset({"use", "manage"}))
SESSION = replace(KEY, digest=digest(b"the session"), session="session-1")
COOKIE = {"cookie": "xinference_9997=the session"}
OWN_PAGE = {"sec-fetch-site": "same-origin", "x-xinference": "1"}
#: A path that needs `manage` and that no test's management app has: 404 is the answer to an admitted request.
CHANGE = "/v1/models/m/unload"


async def ask(
    headers: dict[str, str],
    method: str = "POST",
    path: str = CHANGE,
    key: Key = SESSION,
    required: bool = True,
    **fields: Any,
) -> Said:
    keys = CountedKeys(table_of([KEY, key], required=required))
    async with gateway_of(busy_router(), keys=keys, **fields) as gateway:
        return await call(gateway, path, b"", method=method, headers=headers, peer_uid=None)


def code_of(said: Said) -> str:
    body = said.json
    return str(body["problem"]["code"] if "problem" in body else body["error"]["code"])


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        (OWN_PAGE, True),
        ({"origin": "http://127.0.0.1:9997", "host": "127.0.0.1:9997", "x-xinference": "1"}, True),
        ({"sec-fetch-site": "same-origin"}, False),  # a form of the own page, or of something that it shows
        ({"x-xinference": "1"} | {"sec-fetch-site": "cross-site"}, False),
        ({"x-xinference": "1"} | {"sec-fetch-site": "same-site"}, False),  # another port of this host
        ({"x-xinference": "1"} | {"sec-fetch-site": "none"}, False),
        ({"x-xinference": "1"}, False),  # neither header: no browser that has the cookie sends this
        ({"x-xinference": "1", "origin": "http://127.0.0.1:3000", "host": "127.0.0.1:9997"}, False),
        ({"x-xinference": "1", "origin": "null", "host": "127.0.0.1:9997"}, False),
        ({"x-xinference": "0", "sec-fetch-site": "same-origin"}, False),
        ({}, False),
    ],
)
async def test_only_the_own_page_changes_something_by_cookie(headers: dict[str, str], admitted: bool) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        said = await ask(COOKIE | headers, method)
        if admitted:
            assert said.status not in (401, 403), said.body
        else:
            assert said.status == 403, headers
    if not admitted and "null" not in headers.values():
        assert code_of(await ask(COOKIE | headers)) == "cross_site_request"


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        (OWN_PAGE, True),
        ({}, True),
        ({"sec-fetch-site": "none"}, True),  # the user has typed the address
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"accept": "text/event-stream", "sec-fetch-site": "same-origin"}, False),
        ({"accept": "text/event-stream"} | OWN_PAGE, True),
    ],
)
async def test_reading_by_cookie(headers: dict[str, str], admitted: bool) -> None:
    said = await ask(COOKIE | headers, "GET", "/v1/models")
    assert (said.status == 200) is admitted


@pytest.mark.parametrize(
    "cookie",
    [
        "xinference_9998=the session",  # that of the server on another port
        "xinference=the session",
        "xinference_9997=the key",  # a key is no session
        "xinference_9997=",
        "xinference_9997=" + "x" * 5000,
        "XINFERENCE_9997=the session",
    ],
)
async def test_another_cookie_is_none(cookie: str) -> None:
    assert (await ask({"cookie": cookie} | OWN_PAGE, "GET", "/v1/models")).status == 401


async def test_two_servers_of_one_host_have_two_sessions() -> None:
    both = {"cookie": "xinference_9997=the session; xinference_9998=of the other"}
    assert (await ask(both | OWN_PAGE, "GET", "/v1/models")).status == 200
    said = await ask(both | OWN_PAGE, "GET", "/v1/models", port=9998)
    assert said.status == 401


async def test_a_session_is_no_bearer_token() -> None:
    assert (await ask({"authorization": "Bearer the session"}, "GET", "/v1/models")).status == 401


async def test_a_wrong_key_is_refused_whatever_the_cookie_is() -> None:
    for name in ("authorization", "x-api-key"):
        wrong = {name: "Bearer wrong" if name == "authorization" else "wrong"}
        assert (await ask(COOKIE | OWN_PAGE | wrong, "GET", "/v1/models")).status == 401


async def test_an_ended_session_is_refused() -> None:
    said = await ask(COOKIE | OWN_PAGE, "GET", "/v1/models", replace(SESSION, expires=1.0))
    assert said.status == 401 and "the session has ended" in said.json["error"]["message"]


@pytest.mark.parametrize(
    "code",
    ["session_expired", "session_logged_out", "session_key_revoked", "session_key_expired", "session_replaced"],
)
async def test_the_refusal_of_an_ended_session_says_why_it_has_ended(code: str) -> None:
    ended = replace(SESSION, scopes=frozenset(), revoked=1.0, session_end=code)
    said = await ask(COOKIE | OWN_PAGE, "GET", "/v1/models", ended)
    assert (said.status, code_of(said)) == (401, code)


async def test_the_refusal_of_an_unknown_session_differs_from_that_of_no_session() -> None:
    unknown = await ask({"cookie": "xinference_9997=of an earlier server"} | OWN_PAGE, "GET", "/v1/models")
    assert (unknown.status, code_of(unknown)) == (401, "session_ended")
    assert code_of(await ask(OWN_PAGE, "GET", "/v1/models")) == "invalid_api_key"


async def test_a_session_permits_what_its_key_permits() -> None:
    limited = replace(SESSION, scopes=frozenset({"use"}), models=frozenset({"m"}))
    assert (await ask(COOKIE | OWN_PAGE, key=limited)).status == 403
    listed = await ask(COOKIE | OWN_PAGE, "GET", "/v1/models", limited)
    assert [each["id"] for each in listed.json["data"]] == ["m", "m-lora"]


async def test_a_session_counts_on_a_server_without_keys() -> None:
    """Where the system does not tell the user of a connection, the page has the permissions of its session."""
    assert (await ask(OWN_PAGE, required=False)).status == 401
    assert (await ask(COOKIE | OWN_PAGE, required=False)).status not in (401, 403)
    assert (await ask(COOKIE, required=False)).status == 403
