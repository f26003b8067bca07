from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import CHAT, STREAM, chunked, gateway_of, raw_engine, router_of, router_to, served
from tests.support.polling import until_async
from xinference.gateway.http.asgi import Message
from xinference.gateway.stream import EventBuffer

COMPLETION = {"model": "m", "prompt": "hi", "stream": True}


async def dechunked(reader: asyncio.StreamReader) -> bytes:
    """The body of a chunked answer."""
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        assert await reader.readline() == b"\r\n"
    assert await reader.readline() == b"\r\n"
    return body


def events_of(answer: bytes) -> list[bytes]:
    assert answer.endswith(b"\n\n")
    return answer[:-2].split(b"\n\n")


@given(
    events=st.lists(st.text(alphabet="ab:é \r", max_size=8).map(lambda s: s.encode()), max_size=6),
    end=st.sampled_from([b"\n\n", b"\r\n\r\n"]),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_any_chunking_gives_the_same_bytes_out(events: list[bytes], end: bytes, cuts: list[int]) -> None:
    whole = b"".join(b"data: " + event + end for event in events)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    holder = EventBuffer()
    out = [holder.take(whole[a:b]) for a, b in itertools.pairwise(edges)]
    assert b"".join(out) == whole
    assert not holder.incomplete
    assert all(piece.endswith((b"\n\n", b"\n\r\n")) for piece in out if piece)


def test_an_incomplete_event_is_held_until_its_blank_line() -> None:
    holder = EventBuffer()
    assert holder.take(b"data: 1\n\ndata: 2\n") == b"data: 1\n\n"
    assert holder.incomplete
    assert holder.take(b"\n") == b"data: 2\n\n"
    assert not holder.incomplete


def test_an_end_split_over_three_reads_is_found() -> None:
    holder = EventBuffer()
    assert holder.take(b"data: 1\r") == b""
    assert holder.take(b"\n\r") == b""
    assert holder.take(b"\n") == b"data: 1\r\n\r\n"


@pytest.mark.process
async def test_a_stream_is_passed_on_with_its_done_and_headers_against_buffering() -> None:
    async with (
        start_fake_engine(chunks=3) as engine,
        served(router_of(engine)) as gateway,
        gateway.http.post(gateway.url + "/v1/chat/completions", json=STREAM) as response,
    ):
        answer = await response.read()
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Accel-Buffering"] == "no"
    events = events_of(answer)
    assert len(events) == 5
    assert events[-1] == b"data: [DONE]"
    assert answer.count(b"[DONE]") == 1


@pytest.mark.process
async def test_events_arrive_one_by_one_as_the_engine_makes_them() -> None:
    async with (
        start_fake_engine(chunks=5, interval=0.1) as engine,
        served(router_of(engine)) as gateway,
        gateway.http.post(gateway.url + "/v1/chat/completions", json=STREAM) as response,
    ):
        first = await response.content.readuntil(b"\n\n")
        assert b"word" in first
        assert (await engine.stats())["chunks_sent"] < 5


@pytest.mark.process
async def test_an_engine_that_dies_between_events_leaves_one_error_event_and_no_done() -> None:
    async with start_fake_engine(chunks=9, die={"after_chunks": 3}) as engine, served(router_of(engine)) as gateway:
        status, answer = await gateway.stream("/v1/chat/completions", STREAM)
    events = events_of(answer)
    assert status == 200
    assert len(events) == 4
    error = json.loads(events[-1].removeprefix(b"data: "))["error"]
    assert error["code"] == "engine_died"
    assert error["type"] == "server_error"
    assert error["param"] is None
    assert b"[DONE]" not in answer


@pytest.mark.process
async def test_half_an_event_of_a_dying_engine_is_dropped() -> None:
    async with (
        start_fake_engine(chunks=9, interval=0.05, die={"mid_event": 2, "signal": "SIGKILL"}) as engine,
        served(router_of(engine)) as gateway,
    ):
        _, answer = await gateway.stream("/v1/completions", COMPLETION)
    events = [json.loads(event.removeprefix(b"data: ")) for event in events_of(answer)]
    assert ["error" in event for event in events] == [False, False, True]


@pytest.mark.process
async def test_a_dying_engine_ends_an_anthropic_stream_in_anthropics_form() -> None:
    async with start_fake_engine(chunks=9, die={"after_chunks": 2}) as engine, served(router_of(engine)) as gateway:
        _, answer = await gateway.stream("/v1/messages", STREAM | {"max_tokens": 5})
    name, data = events_of(answer)[-1].split(b"\n")
    assert name == b"event: error"
    error = json.loads(data.removeprefix(b"data: "))
    assert error["type"] == "error"
    assert error["error"]["type"] == "api_error"


@pytest.mark.process
async def test_a_client_that_leaves_a_stream_stops_the_engine() -> None:
    async with start_fake_engine(chunks=1000, interval=0.02) as engine, served(router_of(engine)) as gateway:
        async with gateway.http.post(gateway.url + "/v1/chat/completions", json=STREAM) as response:
            await response.content.readuntil(b"\n\n")
            response.close()

        async def cancelled() -> bool:
            return (await engine.stats())["cancelled"] == 1

        await until_async("the engine has seen its client leave", cancelled)


@pytest.mark.process
async def test_a_client_that_leaves_before_a_whole_answer_stops_the_engine() -> None:
    async with start_fake_engine(delay=60.0) as engine, served(router_of(engine)) as gateway:

        async def requested() -> bool:
            return (await engine.stats())["requests"] == 1

        async def cancelled() -> bool:
            return (await engine.stats())["cancelled"] == 1

        asking = asyncio.create_task(gateway.post("/v1/chat/completions", CHAT))
        await until_async("the engine is asked", requested)
        asking.cancel()
        await until_async("the engine has seen its client leave", cancelled)
        assert gateway.gateway.balancer.total == 0


async def test_a_clean_end_without_done_gets_one() -> None:
    for path, body in (("/v1/chat/completions", STREAM), ("/v1/completions", COMPLETION)):
        async with raw_engine(chunked(b"data: 1\n\n")) as there, served(router_to(there)) as gateway:
            assert await gateway.stream(path, body) == (200, b"data: 1\n\ndata: [DONE]\n\n")


async def test_an_anthropic_stream_gets_no_done() -> None:
    async with raw_engine(chunked(b"event: message_stop\ndata: 1\n\n")) as there, served(router_to(there)) as gateway:
        _, answer = await gateway.stream("/v1/messages", STREAM | {"max_tokens": 5})
    assert answer == b"event: message_stop\ndata: 1\n\n"


async def test_a_done_with_crlf_is_seen_as_one() -> None:
    events = b"data: 1\r\n\r\ndata: [DONE]\r\n\r\n"
    async with raw_engine(chunked(events[:8], events[8:])) as there, served(router_to(there)) as gateway:
        assert await gateway.stream("/v1/chat/completions", STREAM) == (200, events)


@pytest.mark.process
async def test_events_of_two_requests_on_one_connection_come_in_order() -> None:
    async with start_fake_engine(chunks=400) as engine, served(router_of(engine)) as gateway:
        _, said = await gateway.stream("/v1/chat/completions", STREAM)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        body = json.dumps(STREAM).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body + head + body)
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            answer = await dechunked(reader)
            assert [len(event) for event in events_of(answer)] == [len(event) for event in events_of(said)]
        writer.close()


@pytest.mark.process
async def test_a_send_that_fails_closes_the_engines_connection() -> None:
    async with (
        start_fake_engine(chunks=1000, interval=0.02) as engine,
        gateway_of(router_of(engine)) as gateway,
    ):

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                raise OSError("the client is gone")

        incoming: list[Message] = [{"type": "http.request", "body": json.dumps(STREAM).encode()}]

        async def receive() -> Message:
            if not incoming:
                await asyncio.Event().wait()
            return incoming.pop()

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": []}
        await gateway(scope, receive, send)

        async def cancelled() -> bool:
            return (await engine.stats())["cancelled"] == 1

        await until_async("the engine has seen its client leave", cancelled)
        assert gateway.balancer.total == 0
