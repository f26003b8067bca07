"""A whole answer is written past uvicorn's `send` with the same bytes, and only where nothing else sees the answer."""

from __future__ import annotations

import asyncio

import pytest
from uvicorn.server import ServerState

from tests.gateway.wire import Wire
from tests.support.cases import in_one_test
from xinference.gateway.http.asgi import ASGIApp, Message, Receive, Scope, Send
from xinference.gateway.http.scope_entries import WRITE_WHOLE
from xinference.gateway.http.server import http_server
from xinference.gateway.http.uvicorn_protocol import Protocol
from xinference.protocol.errors import Header

BODY = b'{"a":1}'
USUAL: list[Header] = [(b"content-type", b"application/json"), (b"content-length", b"7")]
REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


class App:
    """Answers each request, directly where that is possible."""

    def __init__(self, headers: list[Header] = USUAL, *, tries: bool = True, wraps: bool = False) -> None:
        self.headers, self.tries, self.wraps = headers, tries, wraps
        self.direct: list[bool] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped(message: Message) -> None:
            await send(message)

        taken = wrapped if self.wraps else send
        direct = self.tries and scope[WRITE_WHOLE](taken, 200, self.headers, BODY)
        self.direct.append(direct)
        if not direct:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            await send({"type": "http.response.body", "body": BODY})


async def answered(app: ASGIApp, *requests: bytes) -> tuple[bytes, Protocol]:
    """What a client receives that sends these bytes, each when what precedes it is answered."""
    config = http_server(app).config
    config.load()
    received: list[bytes] = []
    state = ServerState()
    state.default_headers = [(b"x-server", b"s")]
    protocol = Protocol(config, state, {})
    protocol.connection_made(Wire(lambda data: received.append(bytes(data))))
    for request in requests:
        protocol.data_received(request)
        while protocol.server_state.tasks:
            await asyncio.gather(*protocol.server_state.tasks)
            await asyncio.sleep(0)  # a task that has ended leaves the set in the next turn
    if protocol.timeout_keep_alive_task is not None:
        protocol.timeout_keep_alive_task.cancel()
    return b"".join(received), protocol


@pytest.mark.parametrize("kind", [b"application/json", b"application/json; charset=utf-8"])
async def test_a_client_receives_the_bytes_that_uvicorn_would_send(kind: bytes) -> None:
    headers = [(b"content-type", kind), USUAL[1]]
    direct, other = App(headers), App(headers, tries=False)
    assert (await answered(direct, REQUEST, REQUEST))[0] == (await answered(other, REQUEST, REQUEST))[0]
    assert (direct.direct, other.direct) == ([True, True], [False, False])


async def test_the_connection_is_free_for_the_next_request() -> None:
    app = App()
    _, protocol = await answered(app, REQUEST)
    assert protocol.is_idle and protocol.server_state.total_requests == 1
    assert protocol.timeout_keep_alive_task is not None


@in_one_test(
    "headers",
    [
        [USUAL[0], (b"content-length", b"8")],
        [USUAL[0]],
        [USUAL[1]],
        [*USUAL, USUAL[1]],
        [USUAL[0], USUAL[0]],
        [*USUAL, (b"x-request-id", b"r")],
        [(b"content-type", b"text/plain"), USUAL[1]],
        [(b"content-type", b"application/json\r\nx: y"), USUAL[1]],
        [(b"content-type", b"application/json"), (b"content-length", b"7\r\n")],
    ],
)
async def test_other_headers_are_left_to_uvicorn(headers: list[Header]) -> None:
    assert not await wrote(headers=headers)


@pytest.mark.parametrize(
    "request_head",
    [
        b"POST / HTTP/1.0\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        REQUEST + REQUEST,
    ],
)
async def test_other_connections_are_left_to_uvicorn(request_head: bytes) -> None:
    app = App()
    await answered(app, request_head)
    assert app.direct[0] is False


async def test_an_answer_that_something_else_sees_is_left_to_it() -> None:
    app = App(wraps=True)
    await answered(app, REQUEST)
    assert app.direct == [False]


async def wrote(headers: list[Header]) -> bool:
    """Whether an answer with these headers is written directly."""
    app = App(headers)
    wrote: list[bool] = []

    async def once(scope: Scope, receive: Receive, send: Send) -> None:
        wrote.append(scope[WRITE_WHOLE](send, 200, headers, BODY))
        app.headers, app.tries = USUAL, False
        await app(scope, receive, send)

    await answered(once, REQUEST)
    return wrote[0]
