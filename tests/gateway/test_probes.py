"""The paths by which orchestrators find out whether the server lives."""

from __future__ import annotations

import pytest

from tests.gateway.harness import HandMadeRouter, call, gateway_of
from xinference import __version__
from xinference.config import Settings
from xinference.gateway.app import Gateway
from xinference.gateway.auth.permissions import Access, Need, required_access
from xinference.gateway.http.last_answers import Shutdown
from xinference.gateway.routes import PROBES


@pytest.mark.parametrize("path", sorted(PROBES))
async def test_a_probe_answers_without_touching_anything(path: str) -> None:
    router = HandMadeRouter()
    async with gateway_of(router) as gateway:
        answer = await call(gateway, path, method="GET")
        head = await call(gateway, path, method="HEAD")
        other = await call(gateway, path, method="POST")
    assert answer.status == 200 and router.looks == 0
    assert answer.json == ({"version": __version__} if path == "/version" else {"status": "ok"})
    assert (head.status, head.body) == (200, b"")
    assert (other.status, other.headers[b"allow"]) == (405, b"GET, HEAD")


@pytest.mark.parametrize("path", sorted(PROBES))
def test_a_probe_needs_no_key(path: str) -> None:
    assert required_access("GET", path) == required_access("HEAD", path) == Access(Need.NOTHING)


async def test_a_server_that_stops_lives_and_is_not_ready() -> None:
    shutdown = Shutdown()

    async def management(*arguments: object) -> None:
        raise AssertionError

    gateway = Gateway(HandMadeRouter(), Settings(), management, shutdown=shutdown)
    try:
        shutdown.begun = True
        ready = await call(gateway, "/readyz", method="GET")
        assert (ready.status, ready.json["error"]["code"]) == (503, "server_stopping")
        assert b"retry-after" in ready.headers
        assert (await call(gateway, "/healthz", method="GET")).status == 200
    finally:
        await gateway.close()
