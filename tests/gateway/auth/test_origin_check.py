from __future__ import annotations

import pytest

from tests.gateway.harness import HandMadeRouter, call, gateway_of
from tests.support.cases import in_one_test
from xinference.gateway.http.asgi import ASGIApp, Message

HERE = ["localhost", "localhost:9997", "LOCALHOST", "a.localhost:1", "127.0.0.1:9997", "127.9.9.9", "[::1]", "[::1]:80"]
ELSEWHERE = [
    *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9997", "192.168.0.2:9997", "[::2]", "@"),
    *("127.0.0.1:9997@evil.example", "localhost:@evil.example", "127.0.0.1:123456@evil.example"),
    "127.0.0.1evil.example",
    "a." * 200 + "localhost",
]


@in_one_test("host", HERE)
async def test_a_loopback_host_may_come_in(host: str) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        assert (await call(gateway, "/health", method="GET", headers={"host": host})).status == 200


@in_one_test("host", ELSEWHERE)
@in_one_test("path", ["/health", "/v1/chat/completions", "/v1/deployments"])
async def test_another_host_is_refused_on_every_path(host: str, path: str) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        answer = await call(gateway, path, method="GET", headers={"host": host})
    assert answer.status == 403
    assert answer.json["error"]["code"] == "forbidden_host"
    assert "loopback" in answer.json["error"]["message"]


@pytest.mark.parametrize("usual_at", [0, 1])
async def test_each_of_two_hosts_is_checked(usual_at: int) -> None:
    hosts = [(b"host", b"evil.example"), (b"host", b"evil.example")]
    hosts[usual_at] = (b"host", b"127.0.0.1:9997")
    async with gateway_of(HandMadeRouter()) as gateway:
        assert await _status(gateway, hosts) == 403


async def test_a_usual_host_does_not_hide_another_origin() -> None:
    headers = [(b"origin", b"https://evil.example"), (b"host", b"127.0.0.1:9997")]
    async with gateway_of(HandMadeRouter()) as gateway:
        assert await _status(gateway, headers) == 403


async def _status(gateway: ASGIApp, headers: list[tuple[bytes, bytes]]) -> int:
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        said.append(message)

    await gateway({"type": "http", "method": "GET", "path": "/health", "headers": headers}, receive, send)
    status: int = said[0]["status"]
    return status


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "chrome-extension://x"]
)
async def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        assert (await call(gateway, "/health", method="GET", headers={"origin": origin})).status == 403


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:9997"])
async def test_a_page_of_this_machine_may_come_in(origin: str) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        assert (await call(gateway, "/health", method="GET", headers={"origin": origin})).status == 200


async def test_a_request_without_host_may_come_in() -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        assert (await call(gateway, "/health", method="GET", headers={"host": ""})).status == 200


async def test_a_server_beyond_loopback_takes_any_host() -> None:
    async with gateway_of(HandMadeRouter(), host="0.0.0.0") as gateway:
        assert (await call(gateway, "/health", method="GET", headers={"host": "models.example"})).status == 200


async def test_a_websocket_of_another_origin_is_closed() -> None:
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        said.append(message)

    async with gateway_of(HandMadeRouter()) as gateway:
        await gateway({"type": "websocket", "path": "/", "headers": [(b"host", b"evil.example")]}, receive, send)
    assert [message["type"] for message in said] == ["websocket.close"]
