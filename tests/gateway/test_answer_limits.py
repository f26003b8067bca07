"""The limits of one answer: its number of tokens, and the time of its engine."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import CHAT, STREAM, HandMadeRouter, Said, call, gateway_of, route, served, target
from tests.gateway.test_rate_limits import BEARER, OneKey
from tests.support.cases import in_one_test
from tests.support.polling import until_async
from xinference.engines.dialects import dialect_of
from xinference.gateway.answer_limits import TimeLimit, limit_tokens
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.routes import DATA_PATHS
from xinference.keys.key import Key
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.routing.table import Route

ENGINES = ("llama.cpp", "Transformers", "vLLM", "SGLang")
CHATS, TEXTS, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
INFILL = "/infill"
BODIES: dict[str, dict[str, Any]] = {
    CHATS: CHAT,
    TEXTS: {"model": "m", "prompt": "a"},
    MESSAGES: CHAT,
    INFILL: {"model": "m", "input_prefix": "a", "input_suffix": "b"},
}


def limited(path: str, of: Route, key: Key | None = None, **fields: Any) -> dict[str, Any]:
    """The body for the engine."""
    body = json.dumps(BODIES[path] | fields).encode()
    document = RequestDocument(body)
    limit_tokens(key, of, check(DATA_PATHS[path].decoder, body), document, dialect_of(of.engine))
    answer: dict[str, Any] = json.loads(document.encoded())
    return answer


def key_with(**limits: Any) -> Key:
    return Key("key-1", "a", b"", frozenset({"use"}), **limits)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_without_a_number_of_tokens_gets_the_limit_of_the_model(engine: str) -> None:
    of = route(engine=engine, max_output_tokens=50)
    assert limited(CHATS, of) == CHAT | {"max_tokens": 50}
    assert limited(CHATS, of, max_tokens=None)["max_tokens"] == 50
    assert limited(CHATS, of, max_tokens=50) == CHAT | {"max_tokens": 50}
    assert limited(CHATS, of, max_completion_tokens=7) == CHAT | {"max_completion_tokens": 7}


@in_one_test("engine", ENGINES)
@in_one_test(
    ("path", "field"),
    [(CHATS, "max_tokens"), (CHATS, "max_completion_tokens"), (TEXTS, "max_tokens"), (MESSAGES, "max_tokens")],
)
def test_a_request_for_more_tokens_is_refused_by_name(engine: str, path: str, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        limited(path, route(engine=engine, max_output_tokens=50), None, **{field: 51})
    problem = refused.value
    assert (problem.status, problem.code, problem.param) == (400, "invalid_request", field)
    assert problem.cause == f"{field}: 51 is more than 50, the maximum number of output tokens of the model 'm'."
    assert problem.hint == "Use at most 50."


def test_the_smaller_limit_of_key_and_model_counts() -> None:
    of, key = route(engine="llama.cpp", max_output_tokens=50), key_with(max_output_tokens=20)
    assert limited(CHATS, of, key)["max_tokens"] == 20
    with pytest.raises(Refusal, match="more than 20, the maximum number of output tokens of this API key"):
        limited(CHATS, of, key, max_tokens=30)
    assert limited(CHATS, of, key_with(max_output_tokens=70))["max_tokens"] == 50
    assert limited(CHATS, route(engine="llama.cpp"), key)["max_tokens"] == 20
    assert limited(CHATS, route(engine="llama.cpp"), key_with()) == CHAT


def test_an_engines_own_name_for_the_number_cannot_exceed_the_limit() -> None:
    of = route(engine="llama.cpp", max_output_tokens=50)
    with pytest.raises(Refusal, match="n_predict: 60 is more than 50"):
        limited(CHATS, of, n_predict=60)
    assert limited(CHATS, of, n_predict=6) == CHAT | {"n_predict": 6}
    assert limited(CHATS, of, n_predict=-1) == CHAT | {"max_tokens": 50}
    # vLLM does not get the field, so it counts for nothing.
    assert limited(CHATS, route(engine="vLLM", max_output_tokens=50), n_predict=6)["max_tokens"] == 50


def test_the_middle_of_a_text_has_the_limit_too() -> None:
    of = route(engine="llama.cpp", max_output_tokens=50)
    assert limited(INFILL, of)["n_predict"] == 50
    assert limited(INFILL, of, n_predict=4)["n_predict"] == 4
    with pytest.raises(Refusal, match="n_predict: 51 is more than 50"):
        limited(INFILL, of, n_predict=51)


def test_a_completion_keeps_an_engines_own_smaller_default() -> None:
    for engine in ("vLLM", "Transformers"):
        assert limited(TEXTS, route(engine=engine, max_output_tokens=50)) == BODIES[TEXTS]
        assert limited(TEXTS, route(engine=engine, max_output_tokens=5))["max_tokens"] == 5
    assert limited(TEXTS, route(engine="llama.cpp", max_output_tokens=50))["max_tokens"] == 50


def test_the_limit_in_a_request_is_never_larger_than_the_context() -> None:
    assert limited(CHATS, route(engine="vLLM", context_length=40, max_output_tokens=50))["max_tokens"] == 40


@pytest.mark.process
@pytest.mark.parametrize(
    ("path", "named", "field"),
    [
        (CHATS, CHAT, "max_tokens"),
        ("/v1/responses", {"model": "m", "input": "hi"}, "max_output_tokens"),
        (MESSAGES, CHAT, "max_tokens"),
    ],
)
async def test_the_limit_is_that_of_every_route(path: str, named: dict[str, Any], field: str) -> None:
    async with start_fake_engine(echo=True) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), engine="vLLM", max_output_tokens=50))
        async with gateway_of(router) as gateway:
            refused = await call(gateway, path, json.dumps(named | {field: 51}).encode())
            assert refused.status == 400 and f"{field}: 51 is more than 50" in refused.body.decode()
            if path == CHATS:
                passed = await call(gateway, path, json.dumps(named).encode())
                assert json.loads(passed.json["body"])["max_tokens"] == 50


def with_time(key: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """The limit of the route, that of the gateway's key, and the headers of a request."""
    if key:
        return {}, {"keys": OneKey(max_request_seconds=0.05)}, BEARER
    return {"max_request_seconds": 0.05}, {}, {}


@pytest.mark.process
@pytest.mark.parametrize("key", [False, True], ids=["model", "key"])
@pytest.mark.parametrize("path", [CHATS, MESSAGES, "/v1/responses"])
async def test_an_answer_that_takes_too_long_is_a_504_that_is_not_repeated(path: str, key: bool) -> None:
    of_route, of_gateway, headers = with_time(key)
    async with start_fake_engine(delay=60) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), engine="llama.cpp", **of_route))
        async with gateway_of(router, **of_gateway) as gateway:
            body = {"model": "m", "input": "a"} if path == "/v1/responses" else CHAT | {"max_tokens": 5}
            said: Said = await call(gateway, path, json.dumps(body).encode(), headers=headers)
            assert said.status == 504 and said.headers[b"x-should-retry"] == b"false"
            assert "took longer than 0.05 seconds, its time limit. Ask for a shorter answer." in said.body.decode()
            kind = "timeout_error" if path == MESSAGES else "server_error"
            assert said.json["error"]["type"] == kind

            async def is_told() -> bool:
                return (await engine.stats())["cancelled"] == 1

            await until_async("the engine has stopped", is_told)
            assert gateway.balancer.total == 0


@pytest.mark.process
async def test_a_stream_that_takes_too_long_ends_with_an_error() -> None:
    async with start_fake_engine(chunks=10_000, interval=0.01) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), engine="llama.cpp", max_request_seconds=0.3))
        async with served(router) as gateway:
            status, answer = await gateway.stream(CHATS, STREAM)
            assert status == 200 and answer.count(b"data: ") > 1
            last = json.loads(answer.rpartition(b"data: ")[2])
            assert last["error"]["code"] == "time_limit_exceeded"
            assert (await gateway.stream(CHATS, STREAM | {"model": "n"}))[0] == 404


@pytest.mark.process
async def test_an_answer_in_time_is_not_touched() -> None:
    async with start_fake_engine(chunks=3) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), engine="llama.cpp", max_request_seconds=600.0))
        async with served(router) as gateway:
            status, answer = await gateway.stream(CHATS, STREAM)
            assert status == 200 and answer.endswith(b"data: [DONE]\n\n")


class StoppedClock:
    """The clock of a loop, which the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.timers: list[float] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.now, raising=False)
        monkeypatch.setattr(loop, "call_at", self._call_at, raising=False)

    def _call_at(self, when: float, *_: Any) -> asyncio.TimerHandle:
        self.timers.append(when - self.now)
        return asyncio.TimerHandle(when, lambda: None, (), asyncio.get_running_loop())


async def test_the_wait_for_a_turn_between_two_parts_of_a_request_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit, clock = TimeLimit(60.0), StoppedClock(monkeypatch)
    limit.start()
    clock.now += 20
    limit.stop()
    clock.now += 300
    limit.start()
    clock.now += 30
    limit.stop()
    limit.start()
    assert clock.timers == [60, 40, 10]
    monkeypatch.undo()
