"""A request that came with an id can be ended by it, and its engine stops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.running import FakeEngine, start_fake_engine
from tests.gateway.harness import CHAT, STREAM, Served, router_of, served
from tests.support.polling import until_async

pytestmark = pytest.mark.process


async def at_the_engine(engine: FakeEngine) -> None:
    async def arrived() -> bool:
        return (await engine.stats())["requests"] == 1

    await until_async("the engine is asked", arrived)


async def ask(gateway: Served, body: Any, **options: Any) -> tuple[int, bytes]:
    async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=body, **options) as response:
        return response.status, await response.read()


@pytest.mark.parametrize(
    ("body", "options"),
    [(CHAT | {"request_id": "mine"}, {}), (CHAT, {"headers": {"X-Request-Id": "mine"}})],
    ids=["body", "header"],
)
async def test_a_request_that_waits_is_a_499(body: Any, options: Any) -> None:
    async with start_fake_engine(delay=60) as engine, served(router_of(engine)) as gateway:
        asked = asyncio.create_task(ask(gateway, body, **options))
        await at_the_engine(engine)
        running = gateway.gateway._running
        assert not running.abort("m", "another") and not running.abort("other", "mine")
        assert running.abort("m", "mine")
        status, answer = await asked
        assert status == 499 and b"The request mine was aborted" in answer
        assert not running.abort("m", "mine")
        assert (await ask(gateway, CHAT | {"model": "n", "request_id": "mine"}))[0] == 404


async def test_a_stream_ends_with_an_error_and_the_engine_stops() -> None:
    async with start_fake_engine(chunks=10_000, interval=0.01) as engine, served(router_of(engine)) as gateway:
        asked = asyncio.create_task(ask(gateway, STREAM | {"request_id": "mine"}))
        await at_the_engine(engine)
        await until_async("one request is in flight", lambda: gateway.gateway.balancer.total == 1)

        async def begun() -> bool:
            return (await engine.stats())["chunks_sent"] > 0

        await until_async("the answer has begun", begun)
        assert gateway.gateway._running.abort("m", "mine")
        status, answer = await asked
        assert status == 200 and b"request_aborted" in answer.rpartition(b"data: ")[2]

        async def stopped() -> bool:
            return (await engine.stats())["cancelled"] == 1

        await until_async("the engine stops", stopped)
        assert gateway.gateway.balancer.total == 0
