"""The gateway of a worker: the last table of the supervisor, and what it answers itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import httpx2
import msgspec
import pytest

from tests.deployments.doubles import turns
from xinference.config import Settings
from xinference.errors import Problem
from xinference.gateway.door_load import DoorLoad
from xinference.gateway.http.engine_pool import EnginePool
from xinference.gateway.node_gateway import NodeGateway, NodeRouter, encode_gateway_table
from xinference.keys.table import KeyTable
from xinference.routing.table import Route, RoutingTable, Target

HERE = Target("r1", "http://127.0.0.1:1", "secret of the engine")
THERE = Target("r2", "https://10.0.0.2:9998/r/r2", "", "n2.node")
ROUTE = Route("one", "llama.cpp", "LLM", "m", 100, 0.0, targets=(HERE, THERE))


def _data(*routes: Route, required: bool = False) -> bytes:
    return encode_gateway_table(
        RoutingTable(MappingProxyType({route.uid: route for route in routes})), KeyTable(required=required)
    )


def _router(asked: list[str] | None = None) -> NodeRouter:
    return NodeRouter((asked if asked is not None else []).append)


async def test_workers_get_the_replicas_that_they_reach_and_no_key_of_an_engine() -> None:
    data, router = _data(ROUTE), _router()
    assert HERE.api_key.encode() not in data and b"127.0.0.1" not in data
    router.use(data)
    assert router.table.routes["one"].targets == (THERE,)
    assert await router.ensure_ready("one", 0) == router.table.routes["one"]


async def test_the_problem_of_a_failed_launch_is_told_on_a_worker() -> None:
    router = _router()
    router.use(_data(replace(ROUTE, targets=(), problem=Problem("engine_died", "The engine has died."))))
    with pytest.raises(Problem, match="has died"):
        await router.ensure_ready("one", 10)


async def test_a_request_waits_for_the_table_with_a_replica_and_the_supervisor_is_asked_for_it_once() -> None:
    asked: list[str] = []
    router = _router(asked)
    router.use(_data(replace(ROUTE, targets=(), on_demand=True)))
    waiting = [asyncio.create_task(router.ensure_ready("one", 30)) for _ in range(3)]
    await turns()
    assert asked == ["one"] and not any(task.done() for task in waiting)
    router.use(_data(ROUTE))
    assert [route.targets for route in await asyncio.gather(*waiting)] == [(THERE,)] * 3


async def test_a_model_without_a_replica_that_workers_reach_is_told_so() -> None:
    router = _router()
    router.use(_data(replace(ROUTE, targets=(HERE,))))
    with pytest.raises(Problem, match="no replica on a worker yet"):
        await router.ensure_ready("one", 0)
    with pytest.raises(Problem, match="There is no model 'two'"):
        await router.ensure_ready("two", 0)


def test_a_table_of_another_release_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        _router().use(msgspec.msgpack.encode({"routes": 1}))


@asynccontextmanager
async def _serving(tmp_path: Path, host: str = "127.0.0.1") -> AsyncIterator[tuple[NodeGateway, httpx2.AsyncClient]]:
    listener = socket.create_server((host, 0))
    gateway = NodeGateway(Settings(home=tmp_path), listener, "10.0.0.1", lambda uid: None, lambda record: None)
    gateway.begin()
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
        yield gateway, client
        await gateway.stop()


async def test_nothing_is_answered_before_the_first_table_and_no_management_after_it(tmp_path: Path) -> None:
    async with _serving(tmp_path) as (gateway, client):
        early = await client.get("/v1/models")
        assert (early.status_code, early.json()["error"]["code"]) == (503, "model_loading")
        gateway.use(b"of another release")
        assert (await client.get("/v1/models")).status_code == 503
        gateway.use(_data(ROUTE))
        assert (await client.get("/v1/models")).json() == {"object": "list", "data": []}
        elsewhere = await client.get("/v1/models/instances")
        assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (501, "not_here")
        assert "10.0.0.1" in elsewhere.text


async def test_clients_of_other_machines_are_answered_unless_the_worker_listens_on_loopback_only(
    tmp_path: Path,
) -> None:
    name = {"Host": "10.0.0.2:9997"}
    async with _serving(tmp_path, "0.0.0.0") as (gateway, client):
        gateway.use(_data(ROUTE))
        assert (await client.get("/v1/models", headers=name)).status_code == 200
    async with _serving(tmp_path) as (gateway, client):
        gateway.use(_data(ROUTE))
        assert (await client.get("/v1/models", headers=name)).status_code == 403


async def test_a_worker_asks_for_keys_as_the_supervisor_does(tmp_path: Path) -> None:
    async with _serving(tmp_path) as (gateway, client):
        gateway.use(_data(ROUTE, required=True))
        assert (await client.get("/v1/models")).status_code == 401, "a request of this machine, too"


async def test_a_replica_is_idle_when_its_last_request_has_ended() -> None:
    load = DoorLoad(EnginePool())
    await load.wait_until_idle("r1", 30)
    for _ in range(2):
        load.begin("r1")
    waiting = asyncio.create_task(load.wait_until_idle("r1", 30))
    load.end("r1")
    await turns()
    assert load.at("r1") == 1 and not waiting.done()
    load.end("r1")
    await waiting
    assert load.at("r1") == 0 and load.last_end("r1") is not None
    load.begin("r1")
    await load.wait_until_idle("r1", 0.0)
