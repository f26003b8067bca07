"""What a client sees when an engine cannot be reached, dies, or is coming back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import aiohttp
import pytest

from tests.fakes.running import FakeEngine, start_fake_engine
from tests.gateway.harness import (
    CHAT,
    STREAM,
    HandMadeRouter,
    chunked,
    raw_engine,
    route,
    router_of,
    router_to,
    served,
    target,
)
from tests.support.polling import until_async
from tests.support.ports import free_port
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.routing.table import Crash, Route, Target

PATH = "/v1/chat/completions"


def nowhere() -> Target:
    return Target("gone", f"http://127.0.0.1:{free_port()}", "k")


@pytest.mark.process
async def test_a_replica_that_cannot_be_reached_is_passed_over() -> None:
    async with start_fake_engine() as engine, served(router_to(nowhere(), nowhere(), target(engine))) as gateway:
        for _ in range(4):
            assert (await gateway.post(PATH, CHAT))[0] == 200


@pytest.mark.process
@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_connection_that_an_engine_closes_before_the_first_byte_is_replaced_by_another(
    body: dict[str, object],
) -> None:
    async with start_fake_engine(drop_requests=1) as closing, start_fake_engine() as engine:
        router = router_to(target(closing, "closing"), target(engine, "well"))
        async with served(router) as gateway:
            for _ in range(2):
                status, answer = await gateway.stream(PATH, body)
                assert status == 200
                assert b"error" not in answer


OTHER: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "something else"}]}
DEATHS: list[dict[str, Any]] = [{"on_request": True}, {"on_request": True, "signal": "SIGSEGV"}]


@pytest.mark.process
@pytest.mark.parametrize("die", DEATHS)
@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_request_whose_engine_crashes_is_given_to_no_other_and_refused_from_then_on(
    body: dict[str, Any], die: dict[str, Any]
) -> None:
    async with start_fake_engine(die=die) as dying, start_fake_engine() as engine:
        router = router_to(target(dying, "dying"))
        async with served(router) as gateway:
            status, answer, _ = await gateway.post(PATH, body)
            assert (status, answer["error"]["code"]) == (502, "engine_died")
            router.publish(route(target(engine, "well")))
            for _ in range(2):
                status, answer, _ = await gateway.post(PATH, body)
                assert (status, answer["error"]["code"]) == (502, "request_crashes_engine")
            assert (await engine.stats())["requests"] == 0
            assert (await gateway.post(PATH, OTHER))[0] == 200
            router.publish(route(target(engine, "well"), created=99.0))
            assert (await gateway.stream(PATH, body))[0] == 200, "a model that is launched anew may do better"


@pytest.mark.process
async def test_no_request_of_a_crashed_replica_is_retried_on_one_that_is_ready() -> None:
    async with start_fake_engine(die={"on_request": True}) as dying, start_fake_engine() as engine:
        router = router_to(target(dying, "dying"), target(engine, "well"))
        async with served(router) as gateway:
            asked = [{"model": "m", "messages": [{"role": "user", "content": f"{n} {n}" * 50}]} for n in range(4)]
            answers = [await gateway.post(PATH, body) for body in asked]
            failed = [answer["error"]["code"] for status, answer, _ in answers if status != 200]
            assert failed == ["engine_died"]
            assert (await engine.stats())["requests"] == 3


@pytest.mark.process
async def test_an_engine_that_crashes_in_mid_stream_is_a_crash_too() -> None:
    async with start_fake_engine(die={"after_chunks": 2}) as dying, start_fake_engine() as engine:
        router = router_to(target(dying, "dying"))
        async with served(router) as gateway:
            assert b"engine_died" in (await gateway.stream(PATH, STREAM))[1]
            router.publish(route(target(engine, "well")))
            status, answer, _ = await gateway.post(PATH, STREAM)
            assert (status, answer["error"]["code"]) == (502, "request_crashes_engine")


@pytest.mark.process
async def test_an_engine_that_was_stopped_in_order_is_no_crash() -> None:
    """Its replica has left the table, so the request goes on to another, and is not held against it."""

    async with start_fake_engine(delay=0.5) as stopped, start_fake_engine() as engine:
        router = HandMadeRouter()
        router.publish(route(target(stopped, "stopped"), target(engine, "well")))
        async with served(router) as gateway:
            asking = [asyncio.create_task(gateway.post(PATH, CHAT)) for _ in range(2)]
            await until_async("a replica has a request", lambda: gateway.gateway.balancer.at("stopped") > 0)
            router.publish(route(target(engine, "well")))
            stopped.process.kill()
            assert [(await one)[0] for one in asking] == [200, 200]
            assert (await gateway.post(PATH, CHAT))[0] == 200


@pytest.mark.process
@pytest.mark.parametrize("body", [CHAT, STREAM])
@pytest.mark.parametrize("code", ["engine_hung", "engine_out_of_memory"])
async def test_clients_are_told_why_the_server_killed_an_engine(body: dict[str, Any], code: str) -> None:
    script: dict[str, Any] = {"chunks": 9, "interval": 60} if body is STREAM else {"delay": 60}
    async with start_fake_engine(**script) as killed, start_fake_engine() as engine:
        router = router_to(target(killed, "killed"))
        async with served(router) as gateway:
            asking = asyncio.create_task(gateway.stream(PATH, body))
            await until_async("it has the request", partial(has_requests, killed, 1))
            router.publish(route(target(engine, "well"), crashes=(Crash("killed", code),)))
            killed.process.kill()
            status, answer = await asking
            assert status == (200 if body is STREAM else 502) and code.encode() in answer
            status, told, _ = await gateway.post(PATH, body)
            assert (status, told["error"]["code"]) == (502, "request_crashes_engine")


@pytest.mark.process
async def test_the_reason_of_an_end_is_waited_for_after_the_connections_broke() -> None:
    async with start_fake_engine(delay=60) as killed:
        router = router_to(target(killed, "killed"))
        async with served(router) as gateway:
            asking = asyncio.create_task(gateway.post(PATH, CHAT))
            await until_async("it has the request", partial(has_requests, killed, 1))
            looks = router.looks
            killed.process.kill()
            await until_async("the gateway looks at the table", lambda: router.looks > looks + 1)
            router.publish(route(crashes=(Crash("killed", "engine_out_of_memory"),)))
            assert (await asking)[1]["error"]["code"] == "engine_out_of_memory"


@pytest.mark.process
async def test_a_request_that_waits_for_a_new_engine_is_refused_once_it_is_suspected() -> None:
    """It came again while the crash was judged."""
    suspected: list[Any] = []

    class Router(HandMadeRouter):
        async def ensure_ready(self, uid: str, deadline: float) -> Route:
            crashes.suspect(suspected[0], 2)
            return await super().ensure_ready(uid, deadline)

    async with start_fake_engine(die={"on_request": True}) as dying, start_fake_engine() as engine:
        router = Router(coming=route(target(engine)))
        router.publish(route(target(dying, "dying")))
        async with served(router) as gateway:
            crashes = gateway.gateway._forwarder._crashes
            crashes._reports = cast(Any, Recorder(suspected))
            assert (await gateway.post(PATH, CHAT))[0] == 502
            router.publish(route(recovering=True))
            status, answer, _ = await gateway.post(PATH, CHAT)
            assert (status, answer["error"]["code"]) == (502, "request_crashes_engine")
            assert (await engine.stats())["requests"] == 0


@pytest.mark.process
async def test_a_client_that_leaves_before_its_answer_is_remembered() -> None:
    async with start_fake_engine(delay=60) as engine, served(router_of(engine)) as gateway:
        left: list[Any] = []
        gateway.gateway._forwarder._crashes._reports = cast(Any, Recorder(left))
        asking = asyncio.create_task(gateway.post(PATH, CHAT))
        await until_async("it has the request", partial(has_requests, engine, 1))
        asking.cancel()
        await until_async("the gateway has noticed", lambda: bool(left))


@dataclass
class Recorder:
    """`CrashReports` that only records the keys."""

    keys: list[Any]

    def note_crash(self, replica_id: str, key: Any, in_flight: int) -> None:
        self.keys.append(key)

    def note_left(self, replica_id: str, key: Any) -> None:
        self.keys.append(key)


async def has_requests(engine: FakeEngine, number: int) -> bool:
    return (await engine.stats())["requests"] == number


@pytest.mark.process
async def test_requests_that_were_together_at_a_crash_are_refused_after_a_second_one() -> None:
    async with start_fake_engine(delay=60) as first, start_fake_engine(delay=60) as second:
        router = router_to(target(first, "first"))
        async with served(router) as gateway:
            for engine, code in ((first, "engine_died"), (second, "engine_died")):
                router.publish(route(target(engine, f"r{engine.pid}")))
                asking = [asyncio.create_task(gateway.post(PATH, body)) for body in (CHAT, OTHER)]
                await until_async("the engine has both", partial(has_requests, engine, 2))
                engine.process.kill()
                assert [(await one)[1]["error"]["code"] for one in asking] == [code, code]
            for body in (CHAT, OTHER):
                assert (await gateway.post(PATH, body))[1]["error"]["code"] == "request_crashes_engine"


@pytest.mark.process
async def test_the_only_engine_dying_before_the_first_byte_is_502() -> None:
    async with start_fake_engine(die={"on_request": True}) as engine, served(router_of(engine)) as gateway:
        status, answer, _ = await gateway.post(PATH, CHAT)
        assert (status, answer["error"]["code"], answer["error"]["type"]) == (502, "engine_died", "server_error")
        assert gateway.gateway.balancer.total == 0


@pytest.mark.process
async def test_a_request_that_kills_engines_is_not_shown_to_all_of_them() -> None:
    async with (
        start_fake_engine(drop_requests=9) as one,
        start_fake_engine(drop_requests=9) as two,
        start_fake_engine(drop_requests=9) as three,
        served(router_of(one, two, three)) as gateway,
    ):
        assert (await gateway.post(PATH, CHAT))[0] == 502
        assert sum([(await engine.stats())["requests"] for engine in (one, two, three)]) == 2


@pytest.mark.process
async def test_an_idle_connection_that_the_engine_closed_is_not_the_clients_trouble() -> None:
    async with start_fake_engine(drop_requests=1) as engine, served(router_of(engine)) as gateway:
        assert (await gateway.post(PATH, CHAT))[0] == 200


@pytest.mark.process
async def test_a_request_waits_for_an_engine_that_is_coming_back() -> None:
    async with start_fake_engine() as engine:
        router = HandMadeRouter(coming=route(target(engine)))
        router.publish(route(recovering=True))
        async with served(router, recover_seconds=7.0) as gateway:
            assert (await gateway.post(PATH, CHAT))[0] == 200
    assert router.waits == [("m", 7.0)]


async def test_an_engine_that_does_not_come_back_is_503_with_retry_after() -> None:
    router = HandMadeRouter(coming=Problem(Code.MODEL_LOADING, "m is at the stage start.", stage="start"))
    router.publish(route(recovering=True, retry_after=3))
    async with served(router) as gateway:
        status, answer, headers = await gateway.post(PATH, CHAT)
    assert (status, headers["retry-after"]) == (503, "3")
    assert "start" in answer["error"]["message"]


async def test_a_request_for_an_unloaded_model_is_told_the_line_that_loads_it() -> None:
    router = HandMadeRouter()
    router.publish(route(unloaded=True, stage="unloaded"))
    async with served(router) as gateway:
        status, answer, headers = await gateway.post(PATH, CHAT)
    assert (status, answer["error"]["code"], router.waits) == (503, "model_unloaded", [])
    assert "`xinference load m`" in answer["error"]["message"] and "retry-after" not in headers


@pytest.mark.process
async def test_a_request_for_a_model_on_demand_waits_until_it_is_loaded() -> None:
    async with start_fake_engine() as engine:
        router = HandMadeRouter(coming=route(target(engine)))
        router.publish(route(on_demand=True, stage="unloaded"))
        async with served(router, on_demand_wait_seconds=9.0) as gateway:
            assert (await gateway.post(PATH, CHAT))[0] == 200
    assert router.waits == [("m", 9.0)]


@pytest.mark.parametrize("choice", [None, "required"])
async def test_tools_are_refused_when_the_loaded_weights_turn_out_to_write_no_calls(choice: str | None) -> None:
    router = HandMadeRouter(coming=route(nowhere(), tools_refused="Its template writes none."))
    router.publish(route(on_demand=True, stage="unloaded"))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    async with served(router, on_demand_wait_seconds=9.0) as gateway:
        status, answer, _ = await gateway.post(
            PATH, CHAT | {"tools": tools} | ({"tool_choice": choice} if choice else {})
        )
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "tools_unsupported", "tools")
    assert router.waits == [("m", 9.0)]


async def test_one_waiter_too_many_for_a_model_on_demand_is_429_with_retry_after() -> None:
    router = HandMadeRouter(coming=Problem(Code.TOO_MANY_WAITING, "64 requests wait for m already."))
    router.publish(route(on_demand=True, retry_after=3))
    async with served(router) as gateway:
        status, answer, headers = await gateway.post(PATH, CHAT)
    assert (status, headers["retry-after"], answer["error"]["code"]) == (429, "3", "too_many_waiting")


@pytest.mark.process
async def test_a_refused_request_waits_for_the_controller_to_bring_another_replica() -> None:
    async with start_fake_engine() as engine:
        router = router_to(nowhere())
        router.coming = route(target(engine))
        async with served(router) as gateway:
            asking = asyncio.create_task(gateway.post(PATH, CHAT))
            await until_async("the gateway looks at the table again", lambda: router.looks > 2)
            router.publish(route(recovering=True))
            assert (await asking)[0] == 200
    assert len(router.waits) == 1


async def test_a_refused_request_that_nobody_helps_is_502() -> None:
    async with served(router_to(nowhere()), recover_seconds=0.1) as gateway:
        status, answer, _ = await gateway.post(PATH, CHAT)
    assert (status, answer["error"]["code"]) == (502, "engine_died")


async def test_a_request_for_a_model_that_was_taken_away_meanwhile_is_404() -> None:
    router = router_to(nowhere())
    async with served(router) as gateway:
        asking = asyncio.create_task(gateway.post(PATH, CHAT))
        await until_async("the gateway looks at the table again", lambda: router.looks > 2)
        router.publish()
        assert (await asking)[0] == 404


async def test_a_client_that_leaves_while_waiting_ends_the_wait() -> None:
    class Patient(HandMadeRouter):
        ended = False

        async def ensure_ready(self, uid: str, deadline: float) -> None:  # type: ignore[override]  # it never returns a route
            self.waits.append((uid, deadline))
            try:
                await asyncio.Event().wait()
            finally:
                self.ended = True

    router = Patient()
    router.publish(route(recovering=True))
    async with served(router) as gateway:
        asking = asyncio.create_task(gateway.post(PATH, CHAT))
        await until_async("the gateway waits for the model", lambda: bool(router.waits))
        asking.cancel()
        await until_async("the wait has ended", lambda: router.ended)


async def test_half_a_whole_answer_is_never_passed_on() -> None:
    half = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"id":'
    async with raw_engine(half, half) as there, served(router_to(there)) as gateway:
        status, answer, _ = await gateway.post(PATH, CHAT)
    assert (status, answer["error"]["code"]) == (502, "engine_died")


async def test_an_answer_of_unknown_length_that_breaks_off_is_seen_to_break_off() -> None:
    half = chunked(b'{"id":', content_type="application/json", end=False)
    async with raw_engine(half, half) as there, served(router_to(there)) as gateway:
        with pytest.raises(aiohttp.ClientError):
            await gateway.post(PATH, CHAT)


async def test_an_engine_error_that_breaks_off_still_gives_an_error() -> None:
    half = b'HTTP/1.1 500 No\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"err\r\n'
    async with raw_engine(half, half) as there, served(router_to(there)) as gateway:
        status, answer, _ = await gateway.post(PATH, CHAT)
    assert status in (500, 502)
    assert json.dumps(answer["error"]["type"]) == '"server_error"'


@pytest.mark.process
async def test_a_request_counts_from_the_turn_on_in_which_its_model_is_ready() -> None:
    found: list[int] = []

    class Router(HandMadeRouter):
        async def ensure_ready(self, uid: str, deadline: float) -> Route:
            await asyncio.sleep(0)
            # The first that runs after this turn: nobody may find the model idle and unload it.
            asyncio.get_running_loop().call_soon(lambda: found.append(gateway.gateway.balancer.at("r0")))
            return await super().ensure_ready(uid, deadline)

    async with start_fake_engine() as engine:
        router = Router(coming=route(target(engine)))
        router.publish(route(on_demand=True))
        async with served(router) as gateway:
            assert (await gateway.post(PATH, CHAT))[0] == 200
    assert found == [1]
