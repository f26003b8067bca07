"""What each client is told when the server stops before its answer is complete."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.gateway.harness import CHAT, STREAM, HandMadeRouter, gateway_of, raw_engine, route, router_to
from tests.support.polling import until_async
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.gateway.app import Gateway
from xinference.gateway.http import server as http_server_module
from xinference.gateway.http.asgi import Receive, Scope, Send
from xinference.gateway.http.last_answers import Shutdown
from xinference.gateway.http.server import Server, http_server
from xinference.listener import listen
from xinference.routing.table import Target

EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
ANTHROPIC = {"anthropic-version": "2023-06-01"}


class HoldingEngine:
    """An engine that sends what it is given and then nothing more."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.holds = asyncio.Event()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        writer.write(b"".join(self.pieces))
        self.holds.set()
        await reader.read()
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Target]:
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0)
        async with server:
            yield Target("r0", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key")


@contextlib.asynccontextmanager
async def stoppable(
    router: HandMadeRouter, app: Any = None, drain_seconds: float = 0.0
) -> AsyncIterator[tuple[Server, asyncio.Task[None], str]]:
    """The production server in front of a gateway; open answers get `drain_seconds`."""
    shutdown = Shutdown()
    gateway = Gateway(router, Settings(), app, shutdown=shutdown)
    server = http_server(gateway, shutdown=shutdown, drain_seconds=drain_seconds)
    with listen(Settings(port=0), port_is_given=True) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await until_async("the server has started", lambda: server.started)
        yield server, task, f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.stop()
        await task
    await gateway.close()


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("cut", [b"", b'data: {"choices"'])
async def test_a_stream_ends_with_an_error_event(cut: bytes, caplog: pytest.LogCaptureFixture) -> None:
    engine = HoldingEngine(STREAM_HEAD, chunk(EVENT), *([chunk(cut)] if cut else []))
    async with (
        engine.running() as target,
        stoppable(router_to(target)) as (server, task, url),
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/chat/completions", json=STREAM) as answer,
    ):
        assert (await answer.content.readuntil(b"\n\n")) == EVENT
        server.stop()
        rest = await answer.content.read()
        await task
    assert rest.startswith(b"data: ") and rest.endswith(b"\n\n") and rest.count(b"data:") == 1
    error = json.loads(rest.removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"]) == ("server_stopping", "server_error")
    assert not [r for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR]


async def test_a_stream_of_anthropics_api_ends_in_its_own_form() -> None:
    event = b"event: ping\ndata: {}\n\n"
    engine = HoldingEngine(STREAM_HEAD, chunk(event))
    async with (
        engine.running() as target,
        stoppable(router_to(target)) as (server, task, url),
        aiohttp.ClientSession(headers=ANTHROPIC) as http,
        http.post(f"{url}/v1/messages", json=STREAM | {"max_tokens": 5}) as answer,
    ):
        assert (await answer.content.readuntil(b"\n\n")) == event
        server.stop()
        rest = await answer.content.read()
        await task
    assert rest.startswith(b"event: error\ndata: ")
    error = json.loads(rest.removeprefix(b"event: error\ndata: "))
    assert error["type"] == "error"
    assert (error["error"]["type"], error["error"]["code"]) == ("overloaded_error", "server_stopping")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_without_an_answer_is_a_503(path: str, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    engine = HoldingEngine()
    async with (
        engine.running() as target,
        stoppable(router_to(target)) as (server, task, url),
        aiohttp.ClientSession(headers=ANTHROPIC) as http,
    ):
        body = CHAT | {"stream": stream, "max_tokens": 5}
        asking = asyncio.create_task(http.post(url + path, json=body))
        await engine.holds.wait()
        server.stop()
        async with await asking as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["code"]) == (503, "server_stopping")
            assert int(answer.headers["retry-after"]) > 0
            assert error["type"] == ("overloaded_error" if path == "/v1/messages" else "server_error")
        await task
    assert not [r for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR]


async def test_a_half_sent_body_is_a_503() -> None:
    async with stoppable(HandMadeRouter()) as (server, task, url):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        await until_async("the request runs", lambda: bool(server.server_state.tasks))
        server.stop()
        assert (await reader.readline()).split()[1] == b"503"
        await task
        writer.close()


async def test_answers_that_end_within_the_time_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = HoldingEngine(STREAM_HEAD, chunk(EVENT))
    release = asyncio.Event()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(STREAM_HEAD + chunk(EVENT))
        await release.wait()
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        writer.close()  # from Python 3.12 on, a server waits for its open connections

    monkeypatch.setattr(engine, "connection", connection)
    async with (
        engine.running() as target,
        stoppable(router_to(target), drain_seconds=60) as (server, task, url),
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/chat/completions", json=STREAM) as answer,
    ):
        await answer.content.readuntil(b"\n\n")
        server.stop()
        await until_async("the listener is closed", lambda: not server.servers[0].is_serving())
        release.set()
        assert (await answer.content.read()) == b"data: [DONE]\n\n"
        await task


async def test_a_second_interrupt_ends_open_answers_at_once() -> None:
    engine = HoldingEngine(STREAM_HEAD, chunk(EVENT))
    async with (
        engine.running() as target,
        stoppable(router_to(target), drain_seconds=3600) as (server, task, url),
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/chat/completions", json=STREAM) as answer,
    ):
        await answer.content.readuntil(b"\n\n")
        server.handle_exit(signal.SIGINT, None)
        await until_async("the listener is closed", lambda: not server.servers[0].is_serving())
        server.handle_exit(signal.SIGINT, None)
        assert b"server_stopping" in await answer.content.read()
        await task


async def test_a_client_that_does_not_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server_module, "LAST_WRITES_SECONDS", 0.1)
    engine = HoldingEngine(STREAM_HEAD, *[chunk(b"data: " + b"x" * 65536 + b"\n\n")] * 400)
    async with engine.running() as target, stoppable(router_to(target)) as (server, task, url):
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), limit=1024)
        body = json.dumps(STREAM).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await engine.holds.wait()
        server.stop()
        await asyncio.wait_for(task, 20)
        assert not server.server_state.connections
        writer.close()


async def management_that_waits(scope: Scope, receive: Receive, send: Send) -> None:
    kind = {"/v1/events": b"text/event-stream", "/v1/logs": b"text/plain; charset=utf-8"}.get(scope["path"])
    if kind is not None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
    await asyncio.Event().wait()


async def test_the_management_api_tells_its_clients_too(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        stoppable(HandMadeRouter(), management_that_waits) as (server, task, url),
        aiohttp.ClientSession() as http,
        http.get(f"{url}/v1/events") as events,
        http.get(f"{url}/v1/logs") as logs,
    ):
        asking = asyncio.create_task(http.post(f"{url}/v1/models", json={}))
        await until_async("all run", lambda: len(server.server_state.tasks) == 3)
        server.stop()
        async with await asking as launch:
            problem = (await launch.json())["problem"]
            assert (launch.status, problem["code"]) == (503, "server_stopping")
            assert int(launch.headers["retry-after"]) > 0
        *_, last = (await events.content.read()).strip().split(b"\n\n")
        event = json.loads(last.removeprefix(b"data: "))
        assert (event["event_type"], event["problem"]["code"]) == ("SERVER_STOPPING", "server_stopping")
        assert await logs.content.read() == b"data: {}\n\n"
        await task
    assert not [r for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR]


async def test_a_request_that_somebody_else_cancels_is_not_told_of_a_stop() -> None:
    async with raw_engine() as target, gateway_of(router_to(target), management_that_waits) as gateway:
        scope = {"type": "http", "method": "GET", "path": "/docs", "headers": [], "query_string": b""}
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        task = asyncio.create_task(gateway(scope, None, send))  # type: ignore[arg-type]  # the gateway receives nothing here
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sent == []


def test_the_code_has_the_status() -> None:
    assert Code.SERVER_STOPPING.status == 503
    assert route().uid == "m"
