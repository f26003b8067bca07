"""A gateway for one test: served by the production server on loopback, or called as the ASGI app it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.fakes.running import FakeEngine
from tests.routing import routes
from tests.support.loopback_server import serve_connections
from tests.support.polling import until_async
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.gateway.app import Gateway
from xinference.gateway.auth.peer import PEER_UID
from xinference.gateway.http.asgi import ASGIApp, Message, Receive, Scope, Send
from xinference.gateway.http.connection_limits import ConnectionLimits
from xinference.gateway.http.engine_pool import NodeTls
from xinference.gateway.http.server import Server, http_server
from xinference.gateway.request_records import Recorder
from xinference.keys.table import Keys
from xinference.listener import listen
from xinference.routing.table import Route, RoutingTable, Target

ALL_PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/messages/count_tokens"}
)
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
#: Required on the paths of messages. With it, the list of models is Anthropic's.
ANTHROPIC = {"anthropic-version": "2023-06-01"}
STREAM: dict[str, Any] = CHAT | {"stream": True}


@dataclass
class HandMadeRouter:
    """A router whose table a test sets; `coming` is what `ensure_ready` finds after its wait."""

    current: RoutingTable = field(default_factory=RoutingTable)
    looks: int = 0
    """How often the gateway has looked at the table."""
    coming: Route | Problem | None = None
    waits: list[tuple[str, float]] = field(default_factory=list)

    @property
    def table(self) -> RoutingTable:
        self.looks += 1
        return self.current

    def publish(self, *routes: Route) -> None:
        """Make these the routes there are."""
        listing = json.dumps({"object": "list", "data": [{"id": route.uid} for route in routes]}).encode()
        self.current = RoutingTable({route.uid: route for route in routes}, listing)

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        self.waits.append((uid, deadline))
        if isinstance(self.coming, Route):
            return self.coming
        raise self.coming or Problem(Code.MODEL_LOADING, f"{uid} is starting.", stage="start")


def target(engine: FakeEngine, replica_id: str = "r0") -> Target:
    return Target(replica_id, engine.base_url, engine.api_key)


def route(*targets: Target, uid: str = "m", **changes: Any) -> Route:
    return routes.route(*targets, uid=uid, **{"paths": ALL_PATHS, **changes})


def router_of(*engines: FakeEngine) -> HandMadeRouter:
    """A router with one model ``m`` that these engines serve."""
    return router_to(*(target(engine, f"r{n}") for n, engine in enumerate(engines)))


def router_to(*targets: Target) -> HandMadeRouter:
    """A router with one model ``m`` that these targets serve."""
    router = HandMadeRouter()
    router.publish(route(*targets))
    return router


async def management(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for the management API: says which path it was given."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = f"management {scope['method']} {scope['path']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def gateway_of(
    router: HandMadeRouter,
    app: ASGIApp = management,
    keys: Keys | None = None,
    recorder: Recorder | None = None,
    node_tls: NodeTls | None = None,
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """A gateway, closed at the end."""
    gateway = Gateway(router, Settings(**settings), app, keys, recorder=recorder, node_tls=node_tls)
    try:
        yield gateway
    finally:
        await gateway.close()


@dataclass(frozen=True)
class Served:
    """A gateway behind the HTTP server, and an HTTP client for it."""

    url: str
    http: aiohttp.ClientSession
    gateway: Gateway

    async def post(self, path: str, body: Any, **options: Any) -> tuple[int, Any, dict[str, str]]:
        """POST a JSON value or bytes; returns status, the JSON answer, and headers in lower case."""
        given: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.http.post(self.url + path, **given, **options) as response:
            answer = await response.json(content_type=None)
            return response.status, answer, {name.lower(): value for name, value in response.headers.items()}

    async def stream(self, path: str, body: Any) -> tuple[int, bytes]:
        """POST and read the whole stream's bytes."""
        async with self.http.post(self.url + path, json=body) as response:
            return response.status, await response.read()


@contextlib.asynccontextmanager
async def served(
    router: HandMadeRouter, *, recorder: Recorder | None = None, node_tls: NodeTls | None = None, **settings: Any
) -> AsyncIterator[Served]:
    """The gateway on a loopback port while the block runs."""
    async with (
        gateway_of(router, recorder=recorder, node_tls=node_tls, **settings) as gateway,
        listening(gateway, limits=ConnectionLimits.of(Settings(**settings))) as (_, _, url),
        aiohttp.ClientSession(headers=ANTHROPIC) as http,
    ):
        yield Served(url, http, gateway)


@contextlib.asynccontextmanager
async def listening(
    gateway: ASGIApp, *, limits: ConnectionLimits | None = None
) -> AsyncIterator[tuple[Server, asyncio.Task[None], str]]:
    """The production server in front of `gateway`, its task and its address; it has ended when the block is left."""
    server = http_server(gateway, limits=limits)
    with listen(Settings(port=0), port_is_given=True) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await until_async("the server has started", lambda: server.started)
        yield server, task, f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.stop()
        await task


@dataclass
class Said:
    """What an ASGI app sent."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def call(
    app: ASGIApp,
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    pieces: list[bytes] | None = None,
    peer_uid: int | None = os.geteuid(),
    query: str = "",
) -> Said:
    """Call an ASGI app once with one request; its client stays until the answer is complete.

    The client is a program of the server's own user, unless `peer_uid` is another one, or None: not known.
    """
    said, waiting = Said(), pieces if pieces is not None else [body]
    incoming = [
        {"type": "http.request", "body": piece, "more_body": n < len(waiting) - 1} for n, piece in enumerate(waiting)
    ]

    async def receive() -> Message:
        if incoming:
            return incoming.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        said.messages.append(message)

    version = ANTHROPIC if "/v1/messages" in path else {}
    given = {"host": "127.0.0.1:9997", "content-type": "application/json"} | version | (headers or {})
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
        PEER_UID: lambda: peer_uid,
    }
    await app(scope, receive, send)
    assert [message["type"] for message in said.messages].count("http.response.start") == 1
    assert said.messages[-1].get("more_body", False) is False
    return said


@contextlib.asynccontextmanager
async def raw_engine(*answers: bytes) -> AsyncIterator[Target]:
    """An engine that answers each connection's request with the next of these bytes and then closes it."""
    left = list(answers)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        writer.write(left.pop(0) if left else b"")
        await writer.drain()
        writer.close()

    async with serve_connections(connection) as port:
        yield Target("raw", f"http://127.0.0.1:{port}", "key")


def chunked(*pieces: bytes, content_type: str = "text/event-stream", end: bool = True) -> bytes:
    """A chunked answer as it goes over the wire; without `end`, it breaks off."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + chunks(*pieces) + (b"0\r\n\r\n" if end else b"")


def chunks(*pieces: bytes) -> bytes:
    """Pieces of a body, each as a chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
