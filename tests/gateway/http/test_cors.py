from __future__ import annotations

import json

import pytest

from tests.gateway.harness import CHAT, HandMadeRouter, call, gateway_of

PAGE = "http://localhost:3000"
PREFLIGHT = {
    "origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "authorization",
}  # fmt: skip


@pytest.mark.parametrize("setting", [PAGE, f"https://a.b, {PAGE}/", "*"])
async def test_a_page_of_an_allowed_origin_may_ask_and_read(setting: str) -> None:
    async with gateway_of(HandMadeRouter(), allow_origin=setting) as gateway:
        asked = await call(gateway, "/v1/chat/completions", method="OPTIONS", headers=PREFLIGHT)
        assert asked.status == 204 and asked.headers[b"access-control-allow-origin"] == PAGE.encode()
        assert asked.headers[b"access-control-allow-headers"] == b"authorization"
        said = await call(gateway, "/v1/chat/completions", json.dumps(CHAT).encode(), headers={"origin": PAGE})
        assert said.status == 404 and said.headers[b"access-control-allow-origin"] == PAGE.encode()
        listed = await call(gateway, "/v1/models", method="GET", headers={"origin": PAGE})
        assert listed.headers[b"vary"] == b"origin"


async def test_an_origin_elsewhere_is_allowed_by_the_setting_alone() -> None:
    elsewhere = {"origin": "https://a.b"}
    async with gateway_of(HandMadeRouter(), allow_origin="https://a.b") as gateway:
        assert (await call(gateway, "/v1/models", method="GET", headers=elsewhere)).status == 200
        refused = await call(gateway, "/v1/models", method="GET", headers={"origin": "https://c.d"})
        assert refused.status == 403 and b"access-control-allow-origin" not in refused.headers
    async with gateway_of(HandMadeRouter()) as gateway:
        assert (await call(gateway, "/v1/models", method="GET", headers=elsewhere)).status == 403
        asked = await call(gateway, "/v1/chat/completions", method="OPTIONS", headers=PREFLIGHT)
        assert asked.status == 405 and b"access-control-allow-origin" not in asked.headers
