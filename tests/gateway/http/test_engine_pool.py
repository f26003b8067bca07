from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.gateway.harness import CHAT, STREAM, chunked, chunks, raw_engine, router_to, served
from tests.gateway.wire import STREAM_HEAD, Wire
from tests.support.cases import in_one_test
from tests.support.loopback_server import serve_connections
from tests.support.polling import until_async
from xinference.gateway.http import engine_pool as pool
from xinference.gateway.http.engine_connection import (
    HIGH_WATER,
    MAX_HEAD,
    TCP_INFO,
    EngineConnection,
    EngineDiedError,
    EngineUnreachableError,
)
from xinference.gateway.http.engine_pool import EngineAnswer, EnginePool
from xinference.routing.table import Target

HEADERS = ((b"content-type", b"application/json"),)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request's head; b"" when the other side has closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return head


@dataclass
class Engine:
    target: Target
    connections: int = 0


@contextlib.asynccontextmanager
async def engine_that(handle: Handler) -> AsyncIterator[Engine]:
    """An engine in this process that does as the test says with each connection."""
    engine = Engine(Target("r", "", "key"))

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine.connections += 1
        with contextlib.suppress(OSError):
            await handle(reader, writer)
        writer.close()

    async with serve_connections(connection) as port:
        engine.target = Target("r", f"http://127.0.0.1:{port}", "key")
        yield engine


async def ask(engines: EnginePool, target: Target) -> EngineAnswer:
    return await engines.post(target, "/v1/chat/completions", b"", HEADERS, b"{}")


async def read_all(answer: EngineAnswer) -> bytes:
    data = answer.first
    while piece := await answer.read():
        data += piece
    return data


def without_chunks(body: bytes) -> bytes:
    """The data of a chunked body, which must be complete and have no trailer."""
    data, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        size, at = int(body[at:end], 16), end + 2
        data.append(body[at : at + size])
        at += size + 2
        assert body[at - 2 : at] == b"\r\n"
        if size == 0:
            assert at == len(body)
            return b"".join(data)


async def answer_whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_request(reader):
        writer.write(WHOLE)


async def test_one_connection_serves_requests_that_follow_each_other() -> None:
    engines = EnginePool()
    async with engine_that(answer_whole) as engine:
        for _ in range(3):
            answer = await ask(engines, engine.target)
            assert (answer.status, answer.first, answer.at_end) == (200, b"{}", True)
            answer.close()
        assert engine.connections == 1
        await engines.close()


async def test_two_requests_at_once_have_a_connection_each() -> None:
    engines = EnginePool()
    async with engine_that(answer_whole) as engine:
        answers = [await ask(engines, engine.target) for _ in range(2)]
        assert engine.connections == 2
        for answer in answers:
            answer.close()
        await engines.close()


async def test_an_answer_that_was_not_read_to_its_end_costs_the_connection() -> None:
    left = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(chunked(b"data: 1\n\n", end=False))
        assert await reader.read() == b""
        left.set()

    engines = EnginePool()
    async with engine_that(endless) as engine:
        answer = await ask(engines, engine.target)
        assert answer.first == b"data: 1\n\n"
        answer.close()
        await asyncio.wait_for(left.wait(), 5)


async def test_an_idle_connection_is_closed_before_the_engine_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "KEEPALIVE_SECONDS", 0.05)
    left = asyncio.Event()

    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_whole(reader, writer)
        left.set()

    engines = EnginePool()
    async with engine_that(patient) as engine:
        (await ask(engines, engine.target)).close()
        await asyncio.wait_for(left.wait(), 5)
        await engines.close()


async def test_an_engine_may_close_every_idle_connection_as_it_is_used() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(WHOLE)
        await read_request(reader)

    engines = EnginePool()
    async with engine_that(once) as engine:
        for answer in [await ask(engines, engine.target) for _ in range(3)]:
            answer.close()
        for _ in range(3):
            answer = await ask(engines, engine.target)
            assert answer.first == b"{}"
            answer.close()
        await engines.close()


async def test_an_engine_that_breaks_off_a_used_connections_answer_is_not_asked_again() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(WHOLE)
        await read_request(reader)
        writer.write(WHOLE[:9])

    engines = EnginePool()
    async with engine_that(half) as engine:
        (await ask(engines, engine.target)).close()
        with pytest.raises(EngineDiedError):
            await ask(engines, engine.target)
        assert engine.connections == 1


async def test_an_engine_that_dies_of_a_used_connections_request_has_died_not_gone() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(WHOLE)
        await read_request(reader)

    engines = EnginePool()
    async with engine_that(once) as engine:
        (await ask(engines, engine.target)).close()
    # Its listener is gone now, its connection is not.
    with pytest.raises(EngineDiedError):
        await ask(engines, engine.target)


async def test_an_engine_that_speaks_unasked_loses_its_connection() -> None:
    async def chatty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(WHOLE)
        await read_request(reader)
        writer.write(WHOLE + WHOLE)
        await reader.read()

    engines = EnginePool()
    async with engine_that(chatty) as engine:
        for _ in range(2):
            (await ask(engines, engine.target)).close()
        answer = await ask(engines, engine.target)
        assert answer.first == b"{}"
        assert engine.connections == 2
        answer.close()
        await engines.close()


@pytest.mark.parametrize(
    "said", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD + 1)], ids=["nothing", "text", "long"]
)
async def test_what_is_not_an_answer_is_a_dead_engine(said: bytes) -> None:
    async with raw_engine(said) as target:
        with pytest.raises(EngineDiedError):
            await ask(EnginePool(), target)


@in_one_test(
    "headers",
    [
        *(b"X: a\r\n b\r\n", b"X: a\r\n\tb\r\n", b" X: a\r\n"),
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        *(b"Content-Length: 2\r\nContent-Length: 2\r\n", b"Content-Length: 1\r\nContent-Length: 2\r\n"),
        *(b"Content-Length: 2, 2\r\n", b"Content-Length: +2\r\n", b"Content-Length: 99999999999999999999\r\n"),
        *(b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding: chunked, gzip\r\n", b"Transfer-Encoding: xchunked\r\n"),
        *(b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding : chunked\r\n"),
        *(b"X: a\x00b\r\n", b"X: a\rY: b\r\n", b"X: a\nY: b\r\n", b"X a: b\r\n", b"X\r\n"),
    ],
    ids=repr,
)
async def test_an_answer_that_two_clients_could_read_differently_is_an_error(headers: bytes) -> None:
    bad = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + headers + b"\r\n{}"
    async with raw_engine(bad, bad) as target, served(router_to(target)) as gateway:
        status, answer, _ = await gateway.post("/v1/chat/completions", CHAT)
        assert (status, answer["error"]["code"]) == (502, "engine_died")


@pytest.mark.parametrize("bad", [b"zz\r\n", b"2\n{}\r\n", b"1\r\n{}\r\n"], ids=repr)
async def test_a_bad_chunk_ends_the_answer_as_unfinished(bad: bytes) -> None:
    async with raw_engine(chunked(b"{", content_type="application/json", end=False) + bad) as target:
        answer = await ask(EnginePool(), target)
        with pytest.raises(EngineDiedError):
            await read_all(answer)
        answer.close()


async def test_no_listener_is_an_engine_that_cannot_be_reached() -> None:
    async with raw_engine() as target:
        pass
    with pytest.raises(EngineUnreachableError):
        await ask(EnginePool(), target)


async def test_a_continue_and_early_hints_come_before_the_answer() -> None:
    before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n"
    async with raw_engine(before + WHOLE) as target:
        answer = await ask(EnginePool(), target)
        assert (answer.status, answer.first) == (200, b"{}")
        assert b"retry-after" not in dict(answer.headers)
        answer.close()


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async with raw_engine(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nsome text") as target:
        answer = await ask(EnginePool(), target)
        assert await read_all(answer) == b"some text"
        answer.close()


async def test_trailers_are_not_headers() -> None:
    said = chunked(b"1", end=False) + b"0\r\nRetry-After: 5\r\n\r\n"
    async with raw_engine(said) as target:
        answer = await ask(EnginePool(), target)
        assert await read_all(answer) == b"1"
        assert b"retry-after" not in dict(answer.headers)
        answer.close()


async def test_what_came_before_the_connection_broke_is_read_first() -> None:
    async with raw_engine(chunked(b"data: 1\n\n", b"data: 2\n\n", end=False)) as target:
        answer = await ask(EnginePool(), target)
        data = answer.first
        with pytest.raises(EngineDiedError):
            while True:
                data += await answer.read()
        assert data == b"data: 1\n\ndata: 2\n\n"
        answer.close()


async def test_a_clients_header_cannot_add_a_line() -> None:
    heads: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_request(reader))
        writer.write(WHOLE)

    async with engine_that(note) as engine:
        hostile = ((b"accept", b"a\r\nX-Evil: 1"),)
        answer = await EnginePool().post(engine.target, "/tokenize", b"a b\r\nX-Evil: 2", hostile, b"{}")
        answer.close()
    lines = heads[0].split(b"\r\n")
    assert lines[0] == b"POST /tokenize?a%20bX-Evil:%202 HTTP/1.1"
    assert not [line for line in lines if line.startswith(b"X-Evil")]


async def test_nothing_that_clients_send_stays_in_memory_after_their_requests() -> None:
    engines = EnginePool()
    async with engine_that(answer_whole) as engine:
        before = pool._fixed_head.cache_info().currsize
        for number in range(20):
            headers = (*HEADERS, (b"accept", b"text/%d" % number))
            answer = await engines.post(engine.target, "/v1/chat/completions", b"q=%d" % number, headers, b"{}")
            answer.close()
        assert pool._fixed_head.cache_info().currsize == before + 1
        await engines.close()


@pytest.mark.parametrize("size", [1, 64 * 1024 + 1])
async def test_a_body_arrives_whole_whatever_its_size(size: int) -> None:
    async def measure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: %d\r\n" % size in head
        assert await reader.readexactly(size) == b"x" * size
        writer.write(WHOLE)

    async with engine_that(measure) as engine:
        answer = await EnginePool().post(engine.target, "/tokenize", b"", HEADERS, b"x" * size)
        assert answer.status == 200
        answer.close()


async def reading_through(taken: list[bytes], *, takes: bool = True) -> tuple[EngineConnection, asyncio.Task[bytes]]:
    """A connection in mid-answer whose reader sleeps, and the reader."""
    connection = EngineConnection()
    connection.connection_made(Wire(lambda _: None))
    asyncio.get_running_loop().call_soon(connection.data_received, STREAM_HEAD)
    await connection.begin(b"POST / HTTP/1.1\r\n", b"")

    def through(chunk: bytes) -> bool:
        taken.append(chunk)
        return takes

    reader = asyncio.create_task(connection.read(through))
    await asyncio.sleep(0)
    return connection, reader


async def test_what_is_taken_on_the_way_is_not_read() -> None:
    taken: list[bytes] = []
    connection, reader = await reading_through(taken)
    connection.data_received(chunks(b"1"))
    connection.data_received(chunks(b"2", b"3"))
    await asyncio.sleep(0)
    assert (taken, reader.done()) == ([b"1", b"23"], False)
    connection.data_received(b"0\r\n\r\n")
    assert await reader == b""


async def test_what_is_not_taken_on_the_way_is_read_and_nothing_overtakes_it() -> None:
    taken: list[bytes] = []
    connection, reader = await reading_through(taken, takes=False)
    connection.data_received(chunks(b"1"))
    connection.data_received(chunks(b"2"))
    assert await reader == b"12"
    connection.data_received(chunks(b"3"))
    assert (await connection.read(), taken) == (b"3", [b"1"])


async def test_nothing_goes_past_a_reader_that_has_left() -> None:
    taken: list[bytes] = []
    connection, reader = await reading_through(taken)
    reader.cancel()
    await asyncio.sleep(0)
    connection.data_received(chunks(b"1"))
    assert (await connection.read(), taken) == (b"1", [])


async def test_pieces_that_arrive_apart_from_their_lengths_never_pause_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused: list[None] = []
    taken: list[bytes] = []
    connection, reader = await reading_through(taken)
    monkeypatch.setattr(connection._transport, "pause_reading", lambda: paused.append(None))
    for _ in range(HIGH_WATER // 3 + 1):
        connection.data_received(b"1\r\n")
        await asyncio.sleep(0)  # the reader waits again
        connection.data_received(b"1\r\n")
    assert (paused, b"".join(taken)) == ([], b"1" * (HIGH_WATER // 3 + 1))
    connection.data_received(b"0\r\n\r\n")
    assert await reader == b""


@pytest.mark.parametrize("version", [pytest.param(b"1.0", marks=pytest.mark.thorough), b"1.1"])
async def test_a_client_that_does_not_read_stops_the_engine_and_loses_nothing(version: bytes) -> None:
    event = b"data: " + b"x" * 8186 + b"\n\n"
    count, written = 8192, 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(chunked(end=False))
        for _ in range(count):
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            written += len(event)
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    async with engine_that(flood) as engine, served(router_to(engine.target)) as gateway:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", int(gateway.url.rpartition(":")[2])))
        reader, writer = await asyncio.open_connection(sock=client, limit=HIGH_WATER)
        body = json.dumps(STREAM).encode()
        request = b"POST /v1/chat/completions HTTP/%b\r\nHost: localhost\r\nConnection: close\r\n"
        writer.write(request % version + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        seen, still = -1, 0

        def stands_still() -> bool:
            nonlocal seen, still
            still = still + 1 if written == seen and written else 0
            seen = written
            return still > 20

        await until_async("the engine stands still", stands_still)
        # What fits in the kernel's buffers on the way, which grow to a few MiB each, and next to nothing of ours.
        assert written < count * len(event) // 2
        answer = await reader.read(-1)
    if version == b"1.1":
        answer = without_chunks(answer.partition(b"\r\n\r\n")[2])
    assert answer.count(event) == count
    assert b"data: [DONE]\n\n" in answer[-40:]


@pytest.mark.skipif(not TCP_INFO, reason="the system does not tell")
async def test_the_kernel_knows_when_the_last_byte_of_an_engine_arrived() -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM_HEAD + chunks(b"data: 1\n\n"))
        await go_on.wait()
        writer.write(chunks(b"data: 2\n\n"))
        await reader.read()

    async with engine_that(handle) as engine:
        connections = EnginePool()
        assert connections.last_bytes() == {}
        answer = await connections.post(engine.target, "/v1/chat/completions", b"", HEADERS, b"{}")
        first = connections.last_bytes()[engine.target.base_url]
        await until_async("time passes", lambda: time.monotonic() > first + 0.2)
        assert abs(connections.last_bytes()[engine.target.base_url] - first) < 0.1
        go_on.set()
        await answer.read()
        assert connections.last_bytes()[engine.target.base_url] > first + 0.15
        answer.close()
        await until_async("the connection is closed", lambda: not connections.last_bytes())
        await connections.close()
