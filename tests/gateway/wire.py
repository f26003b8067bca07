"""The whole data path in one thread without a socket: production HTTP server, gateway and engine connection.

The client's bytes and the engine's are handed over in memory, so that what is counted is our own work and no kernel's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from uvicorn.server import ServerState

from tests.gateway.harness import CHAT, STREAM, gateway_of, router_to
from xinference.gateway.app import Gateway
from xinference.gateway.http import engine_pool
from xinference.gateway.http.engine_connection import EngineConnection
from xinference.gateway.http.engine_pool import Address, NodeTls
from xinference.gateway.http.server import http_server
from xinference.routing.table import Target

TARGET = Target("r0", "http://127.0.0.1:9", "key")
ANSWER_BODY = json.dumps({"choices": [{"message": {"content": "Hello there."}}], "usage": {"total_tokens": 9}}).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: x\r\nKeep-Alive: timeout=5, max=100\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(ANSWER_BODY), ANSWER_BODY)
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT_DATA = b"data: " + json.dumps({"choices": [{"delta": {"content": " word"}, "index": 0}]}).encode() + b"\n\n"
EVENT = b"%x\r\n%b\r\n" % (len(EVENT_DATA), EVENT_DATA)
STREAM_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport whose writes go to a function."""

    def __init__(self, written: Callable[[bytes], None]) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._written = written
        self._closing = False

    def write(self, data: Any) -> None:
        self._written(data)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class DataPath:
    """A client's connection to the server, and an engine that answers in memory."""

    def __init__(self, protocol: asyncio.Protocol, gateway: Gateway) -> None:
        self.gateway = gateway
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._engine: EngineConnection | None = None
        self._events = 0
        self._expected = b""
        self._answered: asyncio.Future[None] | None = None
        self._received: list[bytes] = []
        protocol.connection_made(Wire(self._to_client))

    @property
    def received(self) -> bytes:
        """What the client has received since its last request."""
        return b"".join(self._received)

    async def chat(self, request: bytes | None = None) -> None:
        """A whole answer; to `CHAT_REQUEST` if no other request is named."""
        self._expected = ANSWER_BODY
        await self._ask(request or CHAT_REQUEST)

    async def stream(self, events: int) -> None:
        """An answer of `events` events, each of which arrives alone."""
        self._events, self._expected = events, b"0\r\n\r\n"
        await self._ask(STREAM_REQUEST)

    async def connect(self, address: Address, tls: NodeTls | None) -> EngineConnection:
        """Stands for the upstream's own."""
        self._engine = EngineConnection()
        self._engine.connection_made(Wire(self._to_engine))
        return self._engine

    async def _ask(self, request: bytes) -> None:
        self._received.clear()
        self._answered = self._loop.create_future()
        self._protocol.data_received(request)
        await self._answered

    def _to_client(self, data: bytes) -> None:
        self._received.append(data)
        if data.endswith(self._expected):
            assert self._answered is not None
            self._answered.set_result(None)

    def _to_engine(self, data: bytes) -> None:
        assert self._engine is not None
        feed = self._engine.data_received
        if not self._events:
            self._loop.call_soon(feed, ANSWER)
            return
        self._loop.call_soon(feed, STREAM_HEAD)
        self._loop.call_soon(self._next_event)

    def _next_event(self) -> None:
        assert self._engine is not None
        self._engine.data_received(EVENT if self._events else STREAM_END)
        if self._events:
            self._events -= 1
            # Two turns of the loop for each: the reader must have run, as it has when events come from an engine.
            self._loop.call_soon(self._loop.call_soon, self._next_event)


@asynccontextmanager
async def data_path() -> AsyncIterator[DataPath]:
    """The path while the block runs; other requests to engines fail meanwhile."""
    async with gateway_of(router_to(TARGET)) as gateway:
        config = http_server(gateway).config
        config.load()
        protocol_class: Any = config.http_protocol_class
        path = DataPath(protocol_class(config, ServerState(), {}), gateway)
        connect, engine_pool._connect = engine_pool._connect, path.connect
        try:
            yield path
        finally:
            engine_pool._connect = connect


def request_of(body: dict[str, Any]) -> bytes:
    """The bytes of a chat, as OpenAI's client for Python sends it."""
    data = json.dumps(body | {"temperature": 0.7, "max_tokens": 256}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:9997\r\nAccept-Encoding: gzip, deflate\r\n"
        "Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        "User-Agent: OpenAI/Python 2.8.0\r\nX-Stainless-Lang: python\r\nX-Stainless-OS: Linux\r\n"
        f"Authorization: Bearer none\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


CHAT_REQUEST, STREAM_REQUEST = request_of(CHAT), request_of(STREAM)
