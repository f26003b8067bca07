"""Time limits of requests and answers, and the number of connections that may wait, with a clock of the test."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import listening
from tests.gateway.http.clocked import ClockedServer, Socket
from tests.gateway.http.test_request_head import Recorder
from tests.support.polling import until_async
from xinference.config import Settings
from xinference.gateway.http import connection_limits, uvicorn_protocol
from xinference.gateway.http.asgi import Receive, Scope, Send
from xinference.gateway.http.connection_limits import (
    ConnectionLimits,
    connections_within,
    free_descriptors,
    raise_descriptor_limit,
)
from xinference.gateway.http.reader_watch import CONTENDED_SECONDS
from xinference.gateway.http.scope_entries import (
    CONTENDED,
    READ_PAUSE,
)
from xinference.gateway.http.uvicorn_protocol import (
    LINGER_SECONDS,
    MAX_DROPPED,
    MAX_HEADERS,
)

LIMITS = ConnectionLimits()
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def exact_times(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits of every connection as they are set, unless a test is about how they spread."""
    if "spread" not in request.node.name:
        monkeypatch.setattr(uvicorn_protocol, "MAX_SPREAD", 0.0)


async def turns() -> None:
    """Let the tasks of requests run."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def app() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.go.set()
    await turns()


def refusal(socket: Socket) -> tuple[int, str]:
    """Status and code of the one answer on a connection."""
    head, _, body = socket.sent.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


# -- requests that are not completed ----------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n"], ids=["nothing", "blank line", "blank lines"])
async def test_a_connection_that_asks_nothing_is_closed_without_an_answer(app: Recorder, sent: bytes) -> None:
    server = ClockedServer(app)
    socket = server.connect()
    if sent:
        socket.protocol.data_received(sent)
    server.loop.advance(LIMITS.head_seconds - 0.1)
    assert not socket.closing
    server.loop.advance(0.2)
    assert socket.closing and socket.sent == b""


async def test_the_ends_of_connections_of_one_moment_spread_over_half_a_second(app: Recorder) -> None:
    server = ClockedServer(app)
    sockets = [server.connect() for _ in range(500)]
    closed: list[int] = []
    for _ in range(60):
        server.loop.advance(LIMITS.head_seconds if not closed else 0.01)
        closed.append(sum(socket.closing for socket in sockets))
    assert max(after - before for before, after in itertools.pairwise(closed)) <= 50
    assert closed[-1] == len(sockets)


@pytest.mark.parametrize("sent", [b"G", GET[:-2], b"\r\nGET / HT"], ids=["one byte", "last line", "after a blank line"])
async def test_a_head_that_is_not_completed_is_a_408(app: Recorder, sent: bytes) -> None:
    server = ClockedServer(app)
    socket = server.connect()
    server.loop.advance(3)
    socket.protocol.data_received(sent)
    server.loop.advance(LIMITS.head_seconds - 0.1)
    assert not socket.sent
    server.loop.advance(0.2)
    assert refusal(socket) == (408, "request_timeout")
    server.loop.advance(60)
    assert socket.closing and app.requests == []


async def test_a_head_that_comes_byte_by_byte_gets_no_further_time(app: Recorder) -> None:
    server = ClockedServer(app)
    socket = server.connect()
    for number in range(100):
        socket.protocol.data_received(GET[number % 16 : number % 16 + 1])
        server.loop.advance(1)
        if socket.sent:
            break
    assert number == LIMITS.head_seconds - 1
    assert refusal(socket)[0] == 408


@pytest.mark.parametrize("sent", [POST, POST + b"x" * 5000, CHUNKED, CHUNKED + b"5\r\nab"], ids=range(4))
async def test_a_body_that_is_not_completed_is_a_408_and_its_request_ends(app: Recorder, sent: bytes) -> None:
    server = ClockedServer(app)
    socket = server.connect()
    socket.protocol.data_received(sent)
    await turns()
    assert len(app.requests) == 1
    server.loop.advance(LIMITS.body_seconds - 0.1)
    assert not socket.sent
    server.loop.advance(0.2)
    assert refusal(socket) == (408, "request_timeout")
    await turns()
    assert app.bodies == [] and not asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize(("size", "seconds", "ends"), [(1, 20, True), (30_000, 29, False), (100, 1, True)])
async def test_a_body_needs_a_minimum_speed(app: Recorder, size: int, seconds: float, ends: bool) -> None:
    server = ClockedServer(app)
    socket = server.connect()
    socket.protocol.data_received(POST.replace(b"100000", b"10000000"))
    await turns()
    for _ in range(100):
        socket.protocol.data_received(b"x" * size)
        await turns()
        server.loop.advance(seconds)
    assert bool(socket.sent) is ends


async def test_a_client_that_may_not_send_is_not_timed(app: Recorder) -> None:
    server = ClockedServer(app)
    socket = server.connect()
    socket.protocol.data_received(GET)
    await turns()
    socket.protocol.data_received(POST + b"x" * 70_000)
    assert socket.paused_reading
    server.loop.advance(3600)
    assert not socket.closing
    app.go.set()
    await turns()
    assert not socket.paused_reading
    server.loop.advance(LIMITS.body_seconds - 1)
    assert not socket.closing
    server.loop.advance(LIMITS.body_seconds * 2)
    assert b" 408 " in socket.sent


async def test_a_body_that_goes_on_after_its_answer_is_not_answered_again() -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    server = ClockedServer(early)
    socket = server.connect()
    socket.protocol.data_received(POST)
    await turns()
    assert b" 401 " in socket.sent
    answer = socket.sent
    for _ in range(20):
        socket.protocol.data_received(b"x")
        server.loop.advance(4)
    assert socket.closing and socket.sent == answer


async def test_a_body_that_never_ends_after_its_answer_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(uvicorn_protocol, "MAX_REST", 100_000)
    server = ClockedServer(early)
    socket = server.connect()
    socket.protocol.data_received(CHUNKED)
    await turns()
    for number in range(12):
        assert socket.closing is (number > 9)
        socket.protocol.data_received(b"2710\r\n" + b"x" * 10_000 + b"\r\n")


async def test_only_some_bytes_of_a_refused_client_are_read(app: Recorder) -> None:
    server = ClockedServer(app)
    socket = server.connect()
    for _ in range(MAX_DROPPED // 65536):
        socket.protocol.data_received(b"a" * 65536)
    assert not socket.paused_reading and refusal(socket)[0] == 400
    socket.protocol.data_received(b"a" * 65536 * 2)
    assert socket.paused_reading
    server.loop.advance(LINGER_SECONDS)
    assert socket.closing


def test_an_idle_connection_stays_open_longer_than_those_of_usual_proxies() -> None:
    assert Settings().idle_seconds == LIMITS.idle_seconds > 65


@pytest.mark.parametrize("more", [b"", b"\r\n"], ids=["nothing", "a blank line"])
async def test_a_connection_is_closed_some_time_after_its_answer(app: Recorder, more: bytes) -> None:
    app.go.set()
    server = ClockedServer(app)
    socket = server.connect()
    socket.protocol.data_received(GET)
    await turns()
    assert socket.sent.startswith(b"HTTP/1.1 200")
    if more:
        socket.protocol.data_received(more)
    server.loop.advance(LIMITS.idle_seconds - 0.1)
    assert not socket.closing
    server.loop.advance(0.2)
    assert socket.closing


async def test_an_answer_that_is_due_has_no_limit_and_a_closed_connection_leaves_no_timer(app: Recorder) -> None:
    server = ClockedServer(app)
    socket = server.connect()
    for piece in (GET[:10], GET[10:]):
        socket.protocol.data_received(piece)
    await turns()
    server.loop.advance(3600)
    assert not socket.closing and server.open == 1
    socket.abort()
    assert (server.open, server.loop.timers) == (0, 0)


async def test_a_request_with_too_many_headers_is_refused(app: Recorder) -> None:
    def head(count: int) -> bytes:
        return b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(count)) + b"\r\n"

    server = ClockedServer(app)
    socket = server.connect()
    socket.protocol.data_received(head(MAX_HEADERS))
    await turns()
    assert len(app.requests) == 1
    socket = server.connect()
    socket.protocol.data_received(head(MAX_HEADERS + 1))
    assert refusal(socket) == (431, "headers_too_large")


# -- clients that do not read -----------------------------------------------------------------------------------


class Streamer:
    """An app that writes pieces of an answer for as long as its client reads them."""

    def __init__(self, contended: bool = False, size: int = 20_000, read_pause: float | None = None) -> None:
        self.contended = contended
        self.read_pause = read_pause
        self.size = size
        self.pieces = 0
        self.ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[CONTENDED] = lambda: self.contended
        scope[READ_PAUSE] = self.read_pause
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while scope.get("on", True) and self.pieces < 100:
            await send({"type": "http.response.body", "body": b"x" * self.size, "more_body": True})
            self.pieces += 1
        self.ended = True


async def stalled(app: Streamer) -> tuple[ClockedServer, Socket]:
    server = ClockedServer(app)
    socket = server.connect()
    socket.reads = False
    socket.protocol.data_received(GET)
    await turns()
    assert not app.ended and socket.unread > 64 * 1024
    return server, socket


@pytest.mark.parametrize("size", [20_000, 100_000, 5_000_000], ids=["stream", "chunks", "one answer"])
async def test_a_client_that_reads_nothing_is_disconnected(size: int) -> None:
    app = Streamer(size=size)
    server, socket = await stalled(app)
    server.loop.advance(LIMITS.write_seconds - 0.1)
    assert not socket.aborted
    server.loop.advance(0.2)
    assert socket.aborted
    await turns()
    assert app.ended and server.loop.timers == 0


async def test_a_client_that_reads_nothing_is_disconnected_sooner_while_others_wait() -> None:
    server, socket = await stalled(Streamer(contended=True))
    server.loop.advance(CONTENDED_SECONDS + 0.1)
    assert socket.aborted


async def test_a_client_may_pause_for_as_long_as_the_app_says() -> None:
    server, socket = await stalled(Streamer(read_pause=600.0))
    server.loop.advance(599)
    assert not socket.aborted
    server.loop.advance(7)
    assert socket.aborted and server.loop.timers == 0


async def test_an_answer_that_has_ended_has_the_limit_of_the_server() -> None:
    app = Streamer(size=5_000_000, read_pause=600.0)
    server, socket = await stalled(app)
    socket.protocol.cycle.response_complete = True
    server.loop.advance(LIMITS.write_seconds + 0.1)
    assert socket.aborted


async def test_a_process_of_this_server_has_no_limit_of_its_own() -> None:
    server = ClockedServer(Streamer())
    socket = server.connect()
    socket.protocol.client = None
    socket.reads = False
    socket.protocol.data_received(GET)
    await turns()
    server.loop.advance(3600)
    assert not socket.aborted
    socket.abort()
    await turns()


async def test_a_client_is_disconnected_once_others_wait() -> None:
    app = Streamer()
    server, socket = await stalled(app)
    server.loop.advance(CONTENDED_SECONDS * 2 + 1)
    app.contended = True
    assert not socket.aborted
    server.loop.advance(CONTENDED_SECONDS)
    assert socket.aborted


async def test_a_client_that_reads_a_long_answer_slowly_stays() -> None:
    app = Streamer(size=5_000_000, contended=True)
    server, socket = await stalled(app)
    for _ in range(300):
        server.loop.advance(2)
        socket.read(10_000)
    assert not socket.aborted


async def test_a_client_that_reads_byte_by_byte_is_disconnected() -> None:
    server, socket = await stalled(Streamer(size=5_000_000))
    for _ in range(60):
        server.loop.advance(1)
        if socket.aborted:
            break
        socket.read(10)
    assert socket.aborted


async def test_a_client_that_reads_again_is_timed_anew() -> None:
    app = Streamer()
    server, socket = await stalled(app)
    server.loop.advance(LIMITS.write_seconds - 1)
    socket.read(socket.unread)
    await turns()
    assert socket.unread > 64 * 1024
    server.loop.advance(LIMITS.write_seconds - 1)
    assert not socket.aborted
    server.loop.advance(2)
    assert socket.aborted


@pytest.mark.parametrize("close", [b"Connection: close\r\n", b""], ids=["close", "keep-alive"])
async def test_a_client_that_does_not_read_the_end_of_its_answer_is_disconnected(close: bytes) -> None:
    async def small(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 1000})

    server = ClockedServer(small)
    socket = server.connect()
    socket.reads = False
    socket.protocol.data_received(GET[:-2] + close + b"\r\n")
    await turns()
    server.loop.advance(LIMITS.idle_seconds + LIMITS.write_seconds + 0.1)
    assert socket.aborted and server.open == 0


# -- a process that stood still --------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", GET[:20], POST], ids=["silent", "head", "body"])
async def test_what_arrived_while_the_process_stood_still_is_read_first(app: Recorder, sent: bytes) -> None:
    server = ClockedServer(app)
    sockets = [server.connect() for _ in range(2)]
    for socket in sockets:
        if sent:
            socket.protocol.data_received(sent)
    await turns()
    server.loop.stand_still(3600)
    assert not any(socket.closing or socket.sent for socket in sockets)
    sockets[0].protocol.data_received((GET if sent != POST else POST + b"x" * 100_000)[len(sent) :])
    await turns()
    server.loop.advance(LIMITS.body_seconds)
    assert [bool(socket.closing or socket.sent) for socket in sockets] == [False, True]
    assert len(app.requests) == (2 if sent == POST else 1)


async def test_what_was_read_while_the_process_stood_still_counts() -> None:
    app = Streamer(size=5_000_000, contended=True)
    server, socket = await stalled(app)
    server.loop.stand_still(3600)
    assert not socket.aborted
    socket.read(4_900_000)
    server.loop.advance(1)
    assert not socket.aborted
    server.loop.advance(LIMITS.write_seconds)
    assert socket.aborted


# -- number of connections --------------------------------------------------------------------------------------


async def test_one_address_may_have_a_number_of_connections_that_wait(app: Recorder) -> None:
    server = ClockedServer(app, ConnectionLimits(waiting_per_address=3))
    sockets = []
    for sent in (b"", b"GET", POST):
        socket = server.connect()
        if sent:
            socket.protocol.data_received(sent)
        sockets.append(socket)
    server.loop.advance(2)
    other = server.connect("10.0.0.2")
    assert not any(socket.aborted for socket in sockets)
    sockets.append(server.connect())
    assert [socket.aborted for socket in sockets] == [True, False, False, False]
    assert not other.aborted and server.open == 4
    await turns()


async def test_connections_with_a_whole_request_do_not_count_as_waiting(app: Recorder) -> None:
    server = ClockedServer(app, ConnectionLimits(waiting_per_address=3))
    sockets = []
    for _ in range(50):
        sockets.append(server.connect())
        sockets[-1].protocol.data_received(GET)
        server.loop.advance(2)
    await turns()
    assert (server.open, len(app.requests)) == (50, 50)


async def test_many_clients_of_one_address_may_connect_at_the_same_moment(app: Recorder) -> None:
    server = ClockedServer(app, ConnectionLimits(waiting_per_address=3))
    sockets = [server.connect() for _ in range(50)]
    assert server.open == 50
    for socket in sockets:
        socket.protocol.data_received(GET)
    await turns()
    assert len(app.requests) == 50


@pytest.mark.parametrize("kind", ["silent", "half a head", "idle"])
async def test_the_last_place_is_taken_from_a_connection_without_a_request(app: Recorder, kind: str) -> None:
    server = ClockedServer(app, ConnectionLimits(connections=3))
    busy = server.connect()
    busy.protocol.data_received(GET)
    await turns()
    others = [server.connect(), server.connect("10.0.0.2")]
    if kind == "half a head":
        for socket in others:
            socket.protocol.data_received(GET[:20])
    if kind == "idle":
        app.go.set()
        for socket in others:
            socket.protocol.data_received(GET)
            await turns()
        app.go.clear()
        assert all(b" 200 " in socket.sent for socket in (busy, *others))
        busy.protocol.data_received(GET)
        await turns()
    new = server.connect()
    assert [socket.aborted for socket in (busy, *others, new)] == [False, True, False, False]
    new.protocol.data_received(GET)
    await turns()
    assert server.open == 3 and not new.closing


async def test_a_connection_without_a_place_is_told_so(app: Recorder) -> None:
    server = ClockedServer(app, ConnectionLimits(connections=3))
    for _ in range(3):
        server.connect().protocol.data_received(GET)
    await turns()
    socket = server.connect()
    assert refusal(socket) == (503, "too_many_connections") and b"retry-after: 1\r\n" in socket.sent
    assert socket.closing and server.open == 3


# -- descriptors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "connections"), [(0, 1), (9, 1), (40, 16), (1000, 469), (65000, 30469)])
def test_each_connection_has_a_descriptor_for_its_engine(free: int, connections: int) -> None:
    assert connections_within(free) == connections
    assert 2 * connections < max(free, 3)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (sum(1 for _ in Path("/dev/fd").iterdir()) + 60, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_descriptors_is_raised(few_descriptors: None, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 55 <= free_descriptors() <= 65
    monkeypatch.setattr(connection_limits, "DESCRIPTORS", soft + 10)
    raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft + 10, hard)
    monkeypatch.setattr(connection_limits, "DESCRIPTORS", soft)
    raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft + 10, hard)


async def test_silent_connections_do_not_shut_others_out(few_descriptors: None, app: Recorder) -> None:
    app.go.set()
    limits = ConnectionLimits(connections=connections_within(free_descriptors() // 3))
    async with listening(app, limits=limits) as (_, _, url), contextlib.AsyncExitStack() as stack:
        port = int(url.rpartition(":")[2])
        for _ in range(limits.connections + 5):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        writer.write(GET)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"


async def test_a_client_that_leaves_a_stream_unread_loses_its_connection() -> None:
    app = Streamer(size=1_000_000)
    limits = ConnectionLimits(write_seconds=0.2)
    async with listening(app, limits=limits) as (_, _, url):
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), limit=1)
        transport: Any = writer.transport
        transport.pause_reading()
        writer.write(GET)
        await until_async("the app has been ended", lambda: app.ended)
        writer.close()
