"""The priority of a request: what names it, what limits it, and what the engine gets."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import CHAT, HandMadeRouter, call, gateway_of, route, target
from tests.routing.routes import TARGET
from tests.support.polling import until_async
from xinference.engines.dialects import DIALECTS
from xinference.gateway.engine_requests import prepare
from xinference.gateway.http.engine_connection import EngineUnreachableError
from xinference.gateway.places import Places
from xinference.gateway.prefix_affinity import prefix_hashes
from xinference.gateway.priority import HIGH, LOW, NORMAL, priority_of
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.routes import DATA_PATHS
from xinference.keys.key import Key
from xinference.protocol.request_check import check
from xinference.protocol.requests import Request
from xinference.routing.table import RoutingTable, Target

PATH = "/v1/chat/completions"


def key(priority: str) -> Key:
    return Key("k", "k", b"", frozenset({"use"}), priority=priority)


CASES: list[tuple[dict[str, Any], str | None, int]] = [
    ({}, None, NORMAL),
    ({"service_tier": "auto"}, None, NORMAL),
    ({"service_tier": "default"}, None, NORMAL),
    ({"service_tier": "priority"}, None, HIGH),
    ({"service_tier": "flex"}, None, LOW),
    ({"priority": -3}, None, HIGH),
    ({"priority": 0}, None, NORMAL),
    ({"priority": 7}, None, LOW),
    ({"priority": 7, "service_tier": "priority"}, None, LOW),
    ({}, "normal", NORMAL),
    ({"service_tier": "priority"}, "normal", NORMAL),
    ({"priority": -1}, "normal", NORMAL),
    ({"service_tier": "flex"}, "normal", LOW),
    ({}, "high", HIGH),
    ({"service_tier": "auto"}, "high", HIGH),
    ({"priority": 0}, "high", NORMAL),
    ({}, "low", LOW),
    ({"service_tier": "priority"}, "low", LOW),
]


@pytest.mark.parametrize(("fields", "of_key", "level"), CASES)
def test_fields_and_the_key_give_the_level(fields: dict[str, Any], of_key: str | None, level: int) -> None:
    request, used = Request(model="m", **fields), None if of_key is None else key(of_key)
    assert priority_of(request, used) == level


@pytest.mark.parametrize("engine", DIALECTS)
def test_engines_do_not_get_the_field_of_the_queue(engine: str) -> None:
    body = json.dumps(CHAT | {"priority": -1}).encode()
    request = check(DATA_PATHS[PATH].decoder, body)
    prepared = prepare(RoutingTable(), route(TARGET, engine=engine), request, RequestDocument(body))
    assert json.loads(prepared.body) == CHAT


async def ask(gateway: Any, **fields: Any) -> int:
    return (await call(gateway, PATH, json.dumps(CHAT | fields).encode())).status


@pytest.mark.process
@pytest.mark.parametrize(
    ("engine", "fields", "header"),
    [
        ("vLLM", {"priority": -5}, "-1"),
        ("vLLM", {"service_tier": "flex"}, "1"),
        ("vLLM", {"priority": 0}, None),
        ("vLLM", {}, None),
        ("llama.cpp", {"priority": -5}, None),
    ],
)
async def test_vllm_gets_the_level_in_a_header(engine: str, fields: dict[str, Any], header: str | None) -> None:
    """A client's own header is not passed on: its key would not limit it."""
    async with start_fake_engine(echo=True) as process:
        router = HandMadeRouter()
        router.publish(route(target(process), engine=engine))
        async with gateway_of(router) as gateway:
            body = json.dumps(CHAT | fields).encode()
            answer = await call(gateway, PATH, body, headers={"x-vllm-priority": "-99"})
    assert json.loads(answer.body)["headers"].get("x-vllm-priority") == header


@pytest.mark.process
@pytest.mark.parametrize(
    ("fields", "value"),
    [({"priority": -5}, -1), ({"service_tier": "flex"}, 1), ({"priority": 0}, None), ({}, None)],
)
async def test_sglang_gets_the_level_in_a_field(fields: dict[str, Any], value: int | None) -> None:
    async with start_fake_engine(echo=True) as process:
        router = HandMadeRouter()
        router.publish(route(target(process), engine="SGLang"))
        async with gateway_of(router) as gateway:
            answer = await call(gateway, PATH, json.dumps(CHAT | fields).encode())
    assert json.loads(json.loads(answer.body)["body"]).get("priority") == value


async def test_requests_wait_at_their_level() -> None:
    router = HandMadeRouter()
    router.publish(route(TARGET, slots=1))
    async with gateway_of(router) as gateway:
        queue = gateway._forwarder.queue
        assert all(queue.enter("m", "a", Places.equal(3)) for _ in range(3))
        fields: list[dict[str, Any]] = [{}, {"priority": 2}, {"service_tier": "priority"}, {"priority": -1}]
        asking = [asyncio.create_task(ask(gateway, **each)) for each in fields]
        await until_async("they wait", lambda: queue.waiting("m") == 4)
        assert [sum(map(len, level.values())) for level in queue._models["m"].levels] == [2, 1, 1]
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        assert queue.waiting("m") == 0


@pytest.mark.process
async def test_a_high_priority_waits_for_one_running_request_under_a_full_queue() -> None:
    ended: list[str] = []

    async def send(gateway: Any, name: str, **fields: Any) -> None:
        assert await ask(gateway, **fields) == 200
        ended.append(name)

    async with start_fake_engine(delay=0.05) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), slots=1))
        async with gateway_of(router) as gateway:
            queue = gateway._forwarder.queue
            many = [asyncio.create_task(send(gateway, "normal")) for _ in range(40)]
            await until_async("they wait", lambda: queue.waiting("m") == 38)
            await send(gateway, "high", service_tier="priority")
            # Two were running, and one may get the place of the second one while the engine answers.
            assert ended.index("high") <= 3
            await asyncio.gather(*many)


@pytest.mark.parametrize(("fields", "replica"), [({"service_tier": "priority"}, "r1"), ({}, "r0")])
async def test_only_a_high_priority_takes_a_free_slot_in_place_of_the_replica_that_knows_its_prompt(
    fields: dict[str, Any], replica: str
) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 400}], **fields}).encode()
    router, first, second = HandMadeRouter(), replace(TARGET, replica_id="r0"), replace(TARGET, replica_id="r1")
    router.publish(route(first, second, slots=4))
    async with gateway_of(router, recover_seconds=0.0) as gateway:
        balancer = gateway.balancer
        balancer._start_counts([first, second])
        balancer._prefixes.remember(prefix_hashes(body, "messages"), "r0")
        for target in (first,) * 4 + (second,) * 2:
            balancer.begin(target)
        sent: list[str] = []

        async def post(target: Target, path: Any, query: Any, headers: Any, body: bytes) -> Any:
            sent.append(target.replica_id)
            raise EngineUnreachableError

        gateway._pool.post = post  # type: ignore[method-assign]  # only this gateway's
        await call(gateway, PATH, body)
    assert sent[0] == replica
