from __future__ import annotations

import asyncio
import json

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import CHAT, router_of, served
from tests.support.polling import until_async

pytestmark = pytest.mark.process


def request(size: int = 0, more: bytes = b"") -> bytes:
    body = json.dumps(CHAT | {"x_padding": "x" * size}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body + more


async def test_a_client_that_sent_a_long_body_and_leaves_stops_the_engine() -> None:
    async with start_fake_engine(delay=60.0) as engine, served(router_of(engine)) as gateway:

        async def asked() -> bool:
            return (await engine.stats())["requests"] == 1

        async def cancelled() -> bool:
            return (await engine.stats())["cancelled"] == 1

        _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        writer.write(request(1_000_000))
        await until_async("the engine is asked", asked)
        writer.close()
        await until_async("the engine has seen its client leave", cancelled)
        assert gateway.gateway.balancer.total == 0


async def test_a_client_that_leaves_with_a_second_request_waiting_ends_the_first() -> None:
    async with start_fake_engine(delay=60.0) as engine, served(router_of(engine)) as gateway:

        async def asked() -> bool:
            return (await engine.stats())["requests"] == 1

        _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        writer.write(request(more=request()))
        await until_async("the engine is asked", asked)
        writer.transport.abort()
        await until_async("nothing is in flight", lambda: gateway.gateway.balancer.total == 0)


async def test_requests_on_one_connection_are_each_watched_for_themselves() -> None:
    async with start_fake_engine() as engine, served(router_of(engine)) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        for _ in range(2):
            writer.write(request(more=request()))
            for _ in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()
