"""Clients of HTTP/1.0, such as nginx by default: no chunk sizes, and the connection is closed after each answer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.gateway.harness import CHAT, STREAM, HandMadeRouter, chunked, listening, raw_engine, router_to, served
from xinference.config import Settings
from xinference.gateway.http.asgi import Receive, Scope, Send
from xinference.gateway.workers.pool import WorkerPool
from xinference.keys.table import NoKeys

EVENTS = [b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n' % n for n in range(3)]
DONE = b"data: [DONE]\n\n"
WHOLE = b'{"choices":[]}'
WITH_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE)


@asynccontextmanager
async def one_process(router: HandMadeRouter) -> AsyncIterator[int]:
    async with served(router) as gateway:
        yield int(gateway.url.rpartition(":")[2])


@asynccontextmanager
async def two_processes(router: HandMadeRouter) -> AsyncIterator[int]:
    pool = WorkerPool(Settings(port=0, gateway_workers=2), router, cast(Any, NoKeys()), Path("no-socket"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        try:
            await pool.start(listener, router)
            yield listener.getsockname()[1]
        finally:
            await pool.close()


#: Each starts a gateway and gives its port.
GATEWAYS = [one_process, pytest.param(two_processes, marks=pytest.mark.process)]


async def ask(port: int, request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """The status line, the headers and the bytes of the body, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = [line.split(b": ", 1) for line in lines]
    return status, {name.lower(): value for name, value in headers}, body


def request(body: dict[str, Any], *headers: str, version: str = "1.0") -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST /v1/chat/completions HTTP/{version}", "Content-Type: application/json", *headers]
    return "\r\n".join((*lines, f"Content-Length: {len(data)}", "", "")).encode() + data


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("headers", [["Host: localhost"], ["Connection: close"], ["Connection: keep-alive"]])
async def test_a_stream_has_no_chunk_sizes_and_ends_with_the_connection(gateway: Any, headers: list[str]) -> None:
    async with raw_engine(chunked(*EVENTS)) as engine, gateway(router_to(engine)) as port:
        status, answered, body = await ask(port, request(STREAM, *headers))
    assert status == b"HTTP/1.1 200 OK"
    assert b"transfer-encoding" not in answered and b"content-length" not in answered
    assert answered[b"connection"] == b"close"
    assert body == b"".join(EVENTS) + DONE


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize(
    "engines_answer", [WITH_LENGTH, chunked(WHOLE[:5], WHOLE[5:], content_type="application/json")]
)
async def test_a_whole_answer_ends_with_the_connection(gateway: Any, engines_answer: bytes) -> None:
    async with raw_engine(engines_answer) as engine, gateway(router_to(engine)) as port:
        status, answered, body = await ask(port, request(CHAT))
    assert (status, answered[b"connection"], body) == (b"HTTP/1.1 200 OK", b"close", WHOLE)
    assert b"transfer-encoding" not in answered


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_refusals_and_other_paths_end_with_the_connection(gateway: Any) -> None:
    async with gateway(HandMadeRouter()) as port:
        status, answered, body = await ask(port, request(CHAT))
        assert status.startswith(b"HTTP/1.1 404") and answered[b"connection"] == b"close"
        assert json.loads(body)["error"]["code"] == "model_not_found"
        for line in (b"GET /v1/models", b"GET /health"):
            status, answered, body = await ask(port, line + b" HTTP/1.0\r\n\r\n")
            assert status == b"HTTP/1.1 200 OK" and answered[b"connection"] == b"close"
            assert len(body) == int(answered[b"content-length"])


async def test_an_answer_of_the_management_api_without_a_length_has_no_chunk_sizes() -> None:
    async def log(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for line in (b"one\n", b"", b"two\n"):
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"three\n", "more_body": False})

    async with listening(log) as (_, _, url):
        _, answered, body = await ask(int(url.rpartition(":")[2]), b"GET /log HTTP/1.0\r\n\r\n")
    assert body == b"one\ntwo\nthree\n" and b"transfer-encoding" not in answered


async def test_a_client_of_http_1_0_is_not_asked_to_continue() -> None:
    async with raw_engine(WITH_LENGTH) as engine, one_process(router_to(engine)) as port:
        status, _, body = await ask(port, request(CHAT, "Expect: 100-continue"))
    assert (status, body) == (b"HTTP/1.1 200 OK", WHOLE)


async def test_a_client_of_http_1_1_still_gets_chunks() -> None:
    async with raw_engine(chunked(*EVENTS)) as engine, one_process(router_to(engine)) as port:
        _, answered, body = await ask(port, request(STREAM, "Host: localhost", "Connection: close", version="1.1"))
    assert answered[b"transfer-encoding"] == b"chunked" and body.endswith(b"0\r\n\r\n")
