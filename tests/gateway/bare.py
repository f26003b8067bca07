"""The yardstick of the CPU budget: the same HTTP server and parsers with no gateway between them.

It does for each request what cannot be left out, so it is as fast or slow as the machine, its load and its versions of
Python and the libraries make it; the gateway's cost is told as a multiple of its.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
import msgspec
import uvicorn
from uvicorn.server import ServerState

from tests.gateway.wire import ANSWER, ANSWER_BODY, CHAT_REQUEST, EVENT, STREAM_END, STREAM_HEAD, STREAM_REQUEST, Wire
from xinference.gateway.http.asgi import Message, Receive, Scope, Send


class BareServer:
    """uvicorn, one function, and a parser for the engine's bytes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        config = uvicorn.Config(
            self._app, interface="asgi3", http="httptools", ws="none", lifespan="off", log_config=None, access_log=False
        )
        config.load()
        protocol_class: Any = config.http_protocol_class
        self._protocol: asyncio.Protocol = protocol_class(config, ServerState(), {})
        self._protocol.connection_made(Wire(self._to_client))
        self._parser = httptools.HttpResponseParser(self)
        self._events = 0
        self._body = b""
        self._answered: asyncio.Future[None] | None = None

    async def chat(self) -> None:
        """A whole answer."""
        await self._ask(CHAT_REQUEST, 0, ANSWER_BODY)

    async def stream(self, events: int) -> None:
        """An answer of `events` events, each of which arrives alone."""
        await self._ask(STREAM_REQUEST, events, b"0\r\n\r\n")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body = body

    async def _ask(self, request: bytes, events: int, expected: bytes) -> None:
        self._events, self._expected = events, expected
        self._answered = self._loop.create_future()
        self._protocol.data_received(request)
        await self._answered

    def _to_client(self, data: bytes) -> None:
        if data.endswith(self._expected):
            assert self._answered is not None
            self._answered.set_result(None)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        msgspec.json.decode((await receive())["body"])
        if not self._events:
            self._parser.feed_data(ANSWER)
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self._body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send(_piece(self._body, more=False))
            return
        self._parser.feed_data(STREAM_HEAD)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(self._events):
            arrived = self._loop.create_future()
            self._loop.call_soon(arrived.set_result, None)
            await arrived
            self._parser.feed_data(EVENT)
            await send(_piece(self._body, more=True))
        self._parser.feed_data(STREAM_END)
        await send(_piece(b"", more=False))


def _piece(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
