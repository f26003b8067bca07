"""The memory that the bodies of all requests may take together."""

from __future__ import annotations

import asyncio
import json

import pytest
from uvicorn.server import ServerState

from tests.gateway.harness import CHAT, HandMadeRouter, call, gateway_of, management, raw_engine, route
from tests.gateway.wire import Wire
from tests.support.polling import until_async
from xinference.gateway.http.asgi import Message
from xinference.gateway.http.request_body import SMALL_BODY, BodyMemory, ClientLeftError, read_body
from xinference.gateway.http.server import http_server
from xinference.gateway.http.uvicorn_protocol import Protocol
from xinference.gateway.places import Places
from xinference.protocol.errors import Refusal

PATH = "/v1/chat/completions"
LARGE = json.dumps(CHAT | {"user": "x" * 2 * SMALL_BODY}).encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Pieces:
    """A body that arrives in pieces; None: the client leaves."""

    def __init__(self, *pieces: bytes | None) -> None:
        self._pieces = list(pieces)

    async def __call__(self) -> Message:
        piece = self._pieces.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}


async def test_a_body_is_counted_while_it_is_received_and_until_it_is_given_back() -> None:
    memory, piece = BodyMemory(10 * SMALL_BODY), b"x" * SMALL_BODY
    await read_body(Pieces(piece, piece, b"x"), {}, 10**9, memory, "a")
    assert memory.held == {"a": 2 * SMALL_BODY + 1}
    await read_body(Pieces(piece), {}, 10**9, memory, "small")
    assert [*memory.held] == ["a"]
    with pytest.raises(ClientLeftError):
        await read_body(Pieces(piece, piece, None), {}, 10**9, memory, "b")
    with pytest.raises(Refusal) as caught:
        await read_body(Pieces(*[piece] * 7), {}, 10**9, memory, "c")
    assert (caught.value.status, caught.value.code) == (503, "bodies_too_large")
    assert dict(caught.value.headers)[b"retry-after"] == b"5"
    for request in ("a", "b", "c", "small"):
        memory.give_back(request)
    assert memory.held == {}
    await read_body(Pieces(piece * 10), {}, 10**9, memory, "d")


async def test_a_body_that_has_arrived_is_taken_without_a_message_and_has_the_same_limits() -> None:
    memory, receive = BodyMemory(3 * SMALL_BODY), Pieces()
    assert await read_body(receive, {}, 10**9, memory, "a", lambda: b"{}") == b"{}"
    assert memory.held == {}
    assert await read_body(receive, {}, 10**9, memory, "b", lambda: LARGE) == LARGE
    assert memory.held == {"b": len(LARGE)}
    with pytest.raises(Refusal) as caught:
        await read_body(receive, {}, 10**9, memory, "c", lambda: LARGE)
    assert caught.value.code == "bodies_too_large"
    with pytest.raises(Refusal) as caught:
        await read_body(receive, {}, 1, memory, "d", lambda: b"{}")
    assert caught.value.status == 413 and "this one is 2 bytes" in caught.value.cause
    assert await read_body(Pieces(b"{", b"}"), {}, 10**9, memory, "e", lambda: None) == b"{}"


async def test_a_connection_gives_its_body_once_when_it_is_complete_and_no_other_request_follows() -> None:
    config = http_server(management).config
    config.load()
    protocol = Protocol(config, ServerState(), {})
    protocol.connection_made(Wire(lambda _: None))
    protocol.data_received(b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n{")
    assert protocol.take_body() is None
    protocol.data_received(b"  ")
    assert protocol.take_body() is None
    protocol.data_received(b"}")
    assert protocol.take_body() == b"{  }"
    assert not protocol.cycle.message_event.is_set(), "the next message is the client's disconnect"
    protocol.data_received(b"GET /b HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert protocol.take_body() is None, "the body would be that of the second request"


async def test_a_request_has_its_memory_until_it_is_answered() -> None:
    async with raw_engine(OK, OK) as engine:
        router = HandMadeRouter()
        router.publish(route(engine, slots=1))
        async with gateway_of(router, max_bodies_bytes=len(LARGE) + 10) as gateway:
            queue = gateway._forwarder.queue
            assert queue.enter("m", "a", Places.equal(2)) and queue.enter("m", "a", Places.equal(2))
            asking = asyncio.create_task(call(gateway, PATH, LARGE))
            await until_async("it waits", lambda: queue.waiting("m") == 1)
            refused = await call(gateway, PATH, LARGE)
            assert (refused.status, refused.json["error"]["code"]) == (503, "bodies_too_large")
            queue.leave("m", "a")
            assert (await asking).status == 200
            assert (await call(gateway, PATH, LARGE)).status == 200
            assert gateway._bodies.held == {}
