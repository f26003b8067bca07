"""Each request leaves one record: complete, streamed, refused, failed, aborted, or left by its client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import (
    CHAT,
    STREAM,
    HandMadeRouter,
    call,
    chunked,
    gateway_of,
    raw_engine,
    route,
    router_of,
    router_to,
    served,
)
from tests.gateway.test_rate_limits import BEARER, OneKey
from tests.support.loopback_server import serve_connections
from tests.support.polling import until_async
from xinference.gateway.http.request_figures import CONTENT
from xinference.gateway.request_records import BATCH, LARGE_BYTES, Recorder
from xinference.protocol.requests import Request
from xinference.records.record import Record
from xinference.routing.table import Target

pytestmark = pytest.mark.process

PATH = "/v1/chat/completions"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


class Kept(Recorder):
    """A recorder, and its records."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        super().__init__(self.records.append)

    async def one(self) -> Record:
        """The only record, when it is there."""
        await until_async("there is a record", lambda: bool(self.records))
        (record,) = self.records
        assert not self.active()
        return record


def sse(**document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return sse(choices=[{"index": 0, "delta": fields}])


DONE = b"data: [DONE]\n\n"


async def test_a_whole_answer() -> None:
    kept = Kept()
    async with start_fake_engine(chunks=3) as engine, served(router_of(engine), recorder=kept) as gateway:
        await gateway.post(PATH, CHAT)
        record = await kept.one()
    assert (record.model, record.replica, record.path, record.stream) == ("m", "r0", PATH, False)
    assert (record.status, record.code, record.client_left, record.exact) == (200, "", False, True)
    assert (record.prompt_tokens, record.output_tokens, record.first_token) == (7, 3, None)
    assert record.bytes_in > 0 < record.bytes_out and record.total > 0 and record.node == "local"


async def test_the_figures_of_an_ended_request_keep_nothing_of_its_body() -> None:
    kept = Kept()
    async with start_fake_engine() as engine, gateway_of(router_of(engine), recorder=kept) as gateway:
        await call(gateway, PATH, json.dumps(CHAT | {"n": 1}).encode())
        (figures,) = kept._ended
        assert not any(isinstance(value, Request) for value in vars(figures).values())


async def test_a_stream_whose_client_asked_for_usage() -> None:
    kept = Kept()
    async with start_fake_engine(chunks=3, usage="asked") as engine, served(router_of(engine), recorder=kept) as to:
        await to.stream(PATH, STREAM | {"stream_options": {"include_usage": True}})
        record = await kept.one()
    assert record.stream and record.exact and (record.prompt_tokens, record.output_tokens) == (7, 3)
    assert record.first_token is not None and 0 < record.first_token <= record.total
    assert record.per_token is not None and record.per_token > 0


async def test_a_stream_without_usage_is_estimated_from_its_events() -> None:
    kept = Kept()
    answer = chunked(delta(role="assistant", content=""), *(delta(content="x") for _ in range(5)), DONE)
    async with raw_engine(answer) as target, served(router_to(target), recorder=kept) as gateway:
        await gateway.stream(PATH, STREAM)
        record = await kept.one()
    assert (record.exact, record.prompt_tokens, record.output_tokens) == (False, None, 5)


@pytest.mark.parametrize("usage_with_done", [False, True])
async def test_the_usage_is_found_however_the_end_is_cut(usage_with_done: bool) -> None:
    kept = Kept()
    usage = sse(choices=[], usage=USAGE)
    end = (usage + DONE,) if usage_with_done else (usage, DONE)
    async with (
        raw_engine(chunked(delta(content="x"), *end)) as target,
        served(router_to(target), recorder=kept) as gateway,
    ):
        await gateway.stream(PATH, STREAM)
        record = await kept.one()
    assert record.exact and record.output_tokens == 3


async def test_the_prompt_of_a_message_is_read_from_its_first_event_however_it_is_cut() -> None:
    kept = Kept()
    usage = {"input_tokens": 1, "cache_read_input_tokens": 8, "output_tokens": 0}
    begin = b"event: message_start\n" + sse(type="message_start", message={"content": [], "usage": usage})
    text = b"event: content_block_delta\n" + sse(type="content_block_delta", delta={"type": "text_delta", "text": "x"})
    end = b"event: message_delta\n" + sse(type="message_delta", usage={"output_tokens": 10})
    answer = chunked(begin, text, end, b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    cut = answer.index(b"data:")
    async with slow_engine(answer[:cut], answer[cut:]) as target, served(router_to(target), recorder=kept) as gateway:
        await gateway.stream("/v1/messages", STREAM | {"max_tokens": 10})
        record = await kept.one()
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens, record.exact) == (9, 8, 10, True)


@contextlib.asynccontextmanager
async def slow_engine(*pieces: bytes) -> AsyncIterator[Target]:
    """An engine whose answer comes in these pieces, each of which is read before the next one is sent."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.close()

    async with serve_connections(connection) as port:
        yield Target("raw", f"http://127.0.0.1:{port}", "key")


@pytest.mark.parametrize(
    ("chunk", "has_content"),
    [
        (delta(role="assistant", content=""), False),
        (delta(role="assistant", content=None), False),
        (delta(role="assistant", content=None, tool_calls=[]), False),
        (delta(content="x"), True),
        (delta(content='"'), True),
        (delta(content="", reasoning_content="Hm"), True),
        (delta(reasoning="Hm"), True),
        (delta(tool_calls=[{"index": 0, "function": {"name": "f"}}]), True),
        (sse(choices=[{"index": 0, "text": "x"}]), True),
        (sse(type="message_start", message={"content": []}), False),
        (sse(type="content_block_start", content_block={"type": "text", "text": ""}), False),
        (sse(type="content_block_start", content_block={"type": "tool_use", "input": {}}), True),
        (sse(type="content_block_delta", delta={"type": "text_delta", "text": "x"}), True),
        (sse(type="content_block_delta", delta={"type": "thinking_delta", "thinking": "x"}), True),
        (sse(type="ping"), False),
        (b": keep-alive\n\n", False),
        (DONE, False),
    ],
)
def test_content_is_what_a_client_can_show(chunk: bytes, has_content: bool) -> None:
    assert bool(CONTENT.search(chunk)) is has_content


@pytest.mark.parametrize(
    ("body", "status", "code", "model"),
    [
        (CHAT | {"model": "n"}, 404, "model_not_found", ""),
        (CHAT | {"messages": []}, 400, "invalid_request", ""),
        (b"{", 415, "unsupported_media_type", ""),
    ],
)
async def test_a_request_that_is_refused(body: Any, status: int, code: str, model: str) -> None:
    kept = Kept()
    async with start_fake_engine() as engine, served(router_of(engine), recorder=kept) as gateway:
        await gateway.post(PATH, body)
        record = await kept.one()
    assert (record.status, record.code, record.model) == (status, code, model)
    assert record.prompt_tokens is record.output_tokens is None and not record.exact


async def test_a_request_that_its_engine_refuses_and_one_above_the_limit_of_its_key() -> None:
    kept = Kept()
    body = {"error": {"message": "no", "type": "server_error"}}
    async with start_fake_engine(status=500, body=body) as engine, served(router_of(engine), recorder=kept) as to:
        await to.post(PATH, CHAT)
        record = await kept.one()
    assert record.status >= 500 and record.code == "engine_error" and record.replica == "r0"
    limited = Kept()
    keys = OneKey(requests_per_minute=1)
    async with start_fake_engine() as engine, gateway_of(router_of(engine), keys=keys, recorder=limited) as gateway:
        for _ in range(2):
            await call(gateway, PATH, json.dumps(CHAT).encode(), headers=BEARER)
    limited.flush()
    assert [(each.status, each.code, each.key_id) for each in limited.records] == [
        (200, "", "k1"),
        (429, "rate_limit_exceeded", "k1"),
    ]


async def test_a_client_that_leaves_in_mid_stream() -> None:
    kept = Kept()
    async with start_fake_engine(chunks=1000, interval=0.05) as engine, served(router_of(engine), recorder=kept) as to:
        async with to.http.post(to.url + PATH, json=STREAM) as response:
            await response.content.readuntil(b"\n\n")
            (active,) = kept.active()
            assert active.model == "m" and active.stream and active.first_token is not None
        record = await kept.one()
    assert (record.status, record.client_left, record.code) == (200, True, "")
    assert not record.exact and record.output_tokens is not None and 1 <= record.output_tokens < 1000
    assert record.per_token is None


async def test_a_client_that_leaves_before_the_answer() -> None:
    kept = Kept()
    async with start_fake_engine(delay=30) as engine, served(router_of(engine), recorder=kept) as gateway:
        with contextlib.suppress(TimeoutError):
            await gateway.post(PATH, CHAT, timeout=aiohttp.ClientTimeout(total=0.3))
        record = await kept.one()
    assert (record.status, record.client_left, record.output_tokens) == (499, True, None)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_aborted_by_the_id_of_its_record(stream: bool) -> None:
    kept = Kept()
    script: dict[str, Any] = {"chunks": 1000, "interval": 0.05} if stream else {"delay": 30}
    async with start_fake_engine(**script) as engine, served(router_of(engine), recorder=kept) as gateway:
        asking = asyncio.create_task(gateway.stream(PATH, STREAM if stream else CHAT))
        await until_async("it is at the engine", lambda: any(each.replica for each in kept.active()))
        if stream:
            await until_async("it has begun", lambda: any(each.first_token for each in kept.active()))
        (active,) = kept.active()
        assert not kept.abort("x-1") and not kept.abort(active.request_id + "0") and not kept.abort("")
        assert kept.abort(active.request_id)
        status, text = await asking
        record = await kept.one()
    assert b"request_aborted" in text and active.request_id.encode() in text
    assert (record.request_id, record.code, record.client_left) == (active.request_id, "request_aborted", False)
    assert record.status == status


async def test_an_engine_that_dies_in_mid_stream() -> None:
    kept = Kept()
    broken = chunked(*(delta(content="x") for _ in range(3)), end=False)
    async with raw_engine(broken) as target, served(router_to(target), recorder=kept) as gateway:
        await gateway.stream(PATH, STREAM)
        record = await kept.one()
    assert (record.status, record.code, record.output_tokens) == (200, "engine_died", 3)


async def test_an_engine_that_reports_an_error_in_its_stream() -> None:
    kept = Kept()
    answer = chunked(delta(content="x"), sse(error={"message": "no memory"}), DONE)
    async with raw_engine(answer) as target, served(router_to(target), recorder=kept) as gateway:
        await gateway.stream(PATH, STREAM)
        record = await kept.one()
    assert (record.status, record.code) == (200, "engine_error")


async def test_the_wait_for_a_load_and_for_a_place_are_told_apart() -> None:
    kept = Kept()
    async with start_fake_engine(delay=0.2) as engine:
        router = HandMadeRouter()
        ready = router_of(engine).current.routes["m"]
        router.coming = ready
        router.publish(route(on_demand=True))
        async with served(router, recorder=kept) as gateway:
            await gateway.post(PATH, CHAT)
        load = await kept.one()
    assert load.wait_load > 0 and load.wait_permit == load.wait_quota == load.wait_recovery == 0
    queued = Kept()
    async with start_fake_engine(delay=0.2) as engine:
        router = router_of(engine)
        router.publish(route(*router.current.routes["m"].targets, slots=1))
        async with served(router, recorder=queued) as gateway:
            await asyncio.gather(*(gateway.post(PATH, CHAT) for _ in range(3)))
    queued.flush()
    waits = sorted(each.wait_permit for each in queued.records)
    assert waits[0] == waits[1] == 0 < waits[2]


async def test_a_path_without_a_model_run_has_no_tokens() -> None:
    kept = Kept()
    path = "/v1/messages/count_tokens"
    async with start_fake_engine(echo=True) as engine, served(router_of(engine), recorder=kept) as gateway:
        await gateway.post(path, CHAT | {"max_tokens": 1})
        record = await kept.one()
    assert (record.path, record.exact, record.prompt_tokens, record.output_tokens) == (path, True, 0, 0)


async def test_records_are_made_together_and_those_of_large_answers_at_once() -> None:
    kept = Kept()
    for number in range(BATCH):
        figures = kept.begin(PATH, "k1")
        assert kept.records == [] and len(kept.active()) == 1
        figures.first = b"{}"
        kept.end(figures, 200)
        assert kept.active() == [] and len(kept.records) == (BATCH if number == BATCH - 1 else 0)
    figures = kept.begin(PATH, "k1")
    figures.first = b" " * (LARGE_BYTES + 1)
    kept.end(figures, 200)
    assert len(kept.records) == BATCH + 1 == len({record.request_id for record in kept.records})
    kept.end(kept.begin(PATH, "k1"), 0)
    await until_async("the rest is made a moment later", lambda: len(kept.records) == BATCH + 2)
    kept.flush()
    assert len(kept.records) == BATCH + 2
    assert [record.started for record in kept.records] == sorted(record.started for record in kept.records)
