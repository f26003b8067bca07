"""Requests that a reverse proxy sends to a server on loopback."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.auth.test_authentication import CountedKeys, busy_router
from tests.gateway.auth.test_browser_sessions import COOKIE, KEY, OWN_PAGE, SESSION, code_of
from tests.gateway.harness import Said, call, gateway_of
from xinference.config import Settings
from xinference.errors import Problem
from xinference.gateway.auth.own_addresses import OwnAddresses
from xinference.keys.table import table_of

PUBLIC = "https://ai.example.org"
BEARER = {"authorization": "Bearer the key"}


async def ask(
    headers: dict[str, str], path: str = "/v1/models", *, keys: bool, method: str = "GET", **fields: Any
) -> Said:
    table = table_of([KEY, SESSION], required=keys)
    async with gateway_of(busy_router(), keys=CountedKeys(table), **fields) as gateway:
        return await call(gateway, path, b"{}" if method == "POST" else b"", method=method, headers=headers)


@pytest.mark.parametrize(
    "name", ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"]
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/keys", "/ui/", "/status", "/v1/chat/completions"])
async def test_a_server_without_keys_refuses_what_a_proxy_sends(name: str, path: str) -> None:
    method = "POST" if path.endswith("completions") else "GET"
    for more in ({}, {"host": "127.0.0.1:9997"}):
        said = await ask({name: "203.0.113.7"} | more, path, keys=False, method=method)
        assert said.status == 403 and code_of(said) == "proxy_without_keys"
        assert b"XINFERENCE_ALLOWED_ORIGINS" in said.body


async def test_with_a_key_a_proxy_is_as_good_as_any_client() -> None:
    headers = {"x-forwarded-for": "203.0.113.7", "host": "127.0.0.1:9997"}
    assert (await ask(headers, keys=True)).status == 401
    assert (await ask(headers | BEARER, keys=True)).status == 200


async def test_whoever_allows_everybody_allows_proxies_too() -> None:
    said = await ask({"x-forwarded-for": "203.0.113.7"}, keys=False, allow_unauthenticated=True)
    assert said.status == 200


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("ai.example.org", PUBLIC, 200),
        ("AI.example.org", PUBLIC.upper(), 200),
        ("127.0.0.1:9997", PUBLIC, 200),
        ("ai.example.org", None, 200),
        ("evil.example.org", PUBLIC, 403),
        ("ai.example.org", "https://evil.example.org", 403),
        ("ai.example.org", "http://ai.example.org", 403),
        ("ai.example.org:8443", PUBLIC, 403),
        ("ai.example.org.evil.org", PUBLIC, 403),
        ("ai.example.org", "null", 403),
    ],
)
async def test_the_addresses_of_the_setting_are_accepted_and_no_others(
    host: str, origin: str | None, status: int
) -> None:
    headers = BEARER | {"host": host} | ({"origin": origin} if origin else {})
    assert (await ask(headers, keys=True, allowed_origins=PUBLIC)).status == status
    assert (await ask(headers, keys=True)).status == 403


async def test_the_page_behind_a_proxy_changes_things_by_cookie() -> None:
    page = COOKIE | {"host": "127.0.0.1:9997", "origin": PUBLIC, "x-xinference": "1", "x-forwarded-for": "203.0.113.7"}
    path = "/v1/models/m/unload"
    for more in (OWN_PAGE, {}):  # also of a browser that sends no `Sec-Fetch-Site`
        said = await ask(page | more, path, keys=True, method="POST", allowed_origins=PUBLIC)
        assert said.status not in (401, 403), said.body
    evil = page | {"origin": "https://evil.example.org"}
    assert (await ask(evil, path, keys=True, method="POST", allowed_origins=PUBLIC)).status == 403


@pytest.mark.parametrize(
    "value", ["*", "ai.example.org", "https://ai.example.org/a", "https://", "ftp://a", "https://*.a"]
)
def test_what_is_no_address_of_a_proxy_is_refused(value: str) -> None:
    with pytest.raises(Problem) as caught:
        Settings.from_env({"XINFERENCE_ALLOWED_ORIGINS": value})
    assert value in caught.value.cause


def test_addresses_may_be_several() -> None:
    addresses = OwnAddresses("https://a.org/, http://b.org:8080")
    assert addresses.has_host(b"a.org") and addresses.has_host(b"b.org:8080") and not addresses.has_host(b"b.org")
    assert addresses.has_origin(b"https://a.org") and not addresses.has_origin(b"https://b.org:8080")
    assert not OwnAddresses("").has_host(b"")
