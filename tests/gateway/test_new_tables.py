"""A new routing table, and the requests that wait or have been answered in part when it comes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest

from tests.gateway.harness import CHAT, HandMadeRouter, call, gateway_of, route
from xinference.config import Settings
from xinference.control.usage import Usage
from xinference.gateway.app import Gateway
from xinference.gateway.node_gateway import NodeGateway, encode_gateway_table
from xinference.gateway.places import Places
from xinference.gateway.workers.ipc import Configuration, TableUpdate
from xinference.gateway.workers.worker import GatewayWorker
from xinference.keys.keyring import Keyring
from xinference.keys.table import KeyTable
from xinference.records.hub import RecordHub
from xinference.routing.table import Route, RoutingTable, Target
from xinference.server_parts import build_single
from xinference.store.database import Store

FIRST = Target("r0", "https://10.0.0.1:9998/r/r0", "", "n1.node")
SECOND = Target("r1", "https://10.0.0.2:9998/r/r1", "", "n2.node")
ONE, BOTH = (route(*targets, engine="llama.cpp", slots=1) for targets in ((FIRST,), (FIRST, SECOND)))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def worker_of_a_cluster(folder: Path) -> tuple[Gateway, Callable[[Route], None]]:
    listener = socket.create_server(("127.0.0.1", 0))
    made = NodeGateway(Settings(home=folder), listener, "10.0.0.1", lambda uid: None, lambda record: None)
    listener.close()

    def publish(route: Route) -> None:
        table = RoutingTable(MappingProxyType({"m": route}))
        made.use(encode_gateway_table(table, KeyTable(required=False)))

    return made.gateway, publish


def gateway_process(folder: Path) -> tuple[Gateway, Callable[[Route], None]]:
    class Channel:
        def send(self, message: Any) -> None:
            """Nobody reads it."""

    settings = asdict(Settings(home=folder)) | {"home": str(folder)}
    made = GatewayWorker(cast(Any, Channel()), Configuration(settings, str(folder / "management.sock")))
    return made._gateway, lambda route: made.handle(TableUpdate(1, {"m": route}, b"[]", [], False))


def single_process(folder: Path) -> tuple[Gateway, Callable[[Route], None]]:
    store, hub = Store(folder / "x.db"), RecordHub()
    parts = build_single(Settings(home=folder), store, Keyring(store), hub, Usage(store, hub.totals), lambda: None)
    return parts.gateway, lambda route: parts.controller._publisher.publish([(route, {})])


@pytest.mark.parametrize("make", [single_process, gateway_process, worker_of_a_cluster])
async def test_a_request_that_waits_goes_to_a_replica_that_is_added_although_no_other_request_comes(
    make: Callable[[Path], tuple[Gateway, Callable[[Route], None]]], tmp_path: Path
) -> None:
    gateway, publish = make(tmp_path)
    queue = gateway._forwarder.queue
    publish(ONE)
    assert queue.enter("m", "a", Places.equal(1)) and not queue.enter("m", "a", Places.equal(1))
    waiting = asyncio.create_task(queue.wait("m", "a"))
    await turns()
    assert not waiting.done()
    publish(BOTH)
    await asyncio.wait_for(waiting, 5)
    await gateway.close()


async def test_a_table_without_the_model_or_its_replicas_gives_no_place() -> None:
    router = HandMadeRouter()
    async with gateway_of(router) as gateway:
        queue = gateway._forwarder.queue
        assert queue.enter("m", "a", Places.equal(1)) and not queue.enter("m", "a", Places.equal(1))
        waiting = asyncio.create_task(queue.wait("m", "a"))
        await turns()
        for routes in ((), (route(slots=1, recovering=True),)):
            router.publish(*routes)
            gateway.use_table()
        await turns()
        assert not waiting.done()
        queue.leave("m", "a")
        await waiting


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/v1/chat/completions", CHAT | {"n": 2}, {"choices": [{"index": 0, "message": {"content": "a"}}]}),
        ("/v1/embeddings", {"model": "m", "input": ["a"] * 16}, {"data": [{"index": 0, "embedding": [1]}] * 8}),
        ("/v1/convert_ids_to_tokens", {"model": "m", "input": [5, 6]}, {"content": "x"}),
    ],
)
async def test_the_next_part_of_a_request_goes_to_the_replicas_of_the_newest_table(
    path: str, body: dict[str, Any], answer: dict[str, Any]
) -> None:
    router, routes = HandMadeRouter(), list[Route]()
    paths = frozenset({"/v1/chat/completions", "/v1/embeddings", "/detokenize"})
    router.publish(route(FIRST, engine="llama.cpp", slots=1, paths=paths))
    async with gateway_of(router) as gateway:

        async def forward(call: Any, route: Route, reply: Any) -> None:
            routes.append(route)
            router.publish(replace(route, targets=(SECOND,)))
            await reply.whole(200, json.dumps(answer).encode())

        gateway._forwarder.forward = forward  # type: ignore[method-assign]  # only this gateway's
        said = await call(gateway, path, json.dumps(body).encode())
    assert said.status == 200, said.json
    assert [each.targets for each in routes] == [(FIRST,), (SECOND,)]
