from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import CHAT, STREAM, HandMadeRouter, Served, call, gateway_of, route, served, target
from tests.support.polling import until_async
from xinference.error_codes import Code
from xinference.gateway import request_admission, request_reader
from xinference.gateway.app import Gateway
from xinference.gateway.rate_limits import (
    MIN_SWEEP,
    Limits,
    LocalMeter,
    LocalQuota,
    MinuteAmounts,
    Permits,
    spent_in_window,
    wait_seconds,
)
from xinference.keys.key import Key
from xinference.keys.secret import digest
from xinference.keys.table import KeyTable, table_of
from xinference.protocol.errors import Refusal

#: A whole minute of the clock.
START = 600_000.0
KEY = Key("k1", "k", digest(b"secret"), frozenset({"use"}))
BEARER = {"authorization": "Bearer secret"}
BODY = json.dumps(CHAT).encode()


class OneKey:
    """A table with one key, and no memory of its use."""

    def __init__(self, **changes: Any) -> None:
        self.table: KeyTable = table_of([replace(KEY, **changes)], required=True)

    def used(self, key: Key, now: float) -> None:
        pass


def taken(limits: Limits, key: Key, now: float) -> int | None:
    """None if a request was let through, else the seconds to wait."""
    try:
        limits.take_request(key, now)
    except Refusal as refusal:
        assert refusal.status == 429
        return int(dict(refusal.headers)[b"retry-after"])
    return None


def test_as_many_requests_a_minute_as_allowed_and_then_a_wait_that_is_enough() -> None:
    limits, key = Limits(), replace(KEY, requests_per_minute=3)
    assert [taken(limits, key, START + n) for n in range(3)] == [None] * 3
    wait = taken(limits, key, START + 3)
    assert wait is not None and wait > 1
    assert taken(limits, key, START + 3 + wait - 1) is not None
    assert taken(limits, key, START + 3 + wait) is None


def test_refused_requests_are_not_counted() -> None:
    limits, key = Limits(), replace(KEY, requests_per_minute=1)
    assert taken(limits, key, START) is None
    first = taken(limits, key, START)
    assert [taken(limits, key, START) for _ in range(50)] == [first] * 50


def test_keys_have_limits_of_their_own() -> None:
    limits, one = Limits(), replace(KEY, requests_per_minute=1)
    other = replace(one, key_id="k2")
    assert taken(limits, one, START) is None and taken(limits, one, START) is not None
    assert taken(limits, other, START) is None


def test_a_key_without_limits_is_not_even_counted() -> None:
    meter = LocalMeter()
    limits = Limits(meter)
    assert [taken(limits, KEY, START) for _ in range(1000)] == [None] * 1000
    assert meter.read("requests k1", int(START // 60)).now == 0


def test_the_request_that_overruns_the_tokens_is_let_through_and_the_next_one_waits() -> None:
    limits, key = Limits(), replace(KEY, tokens_per_minute=100)
    limits.spend_tokens(key, 99, START)
    assert taken(limits, key, START) is None
    limits.spend_tokens(key, 500, START + 1)
    wait = taken(limits, key, START + 1)
    assert wait is not None and 60 < wait < 120
    assert taken(limits, key, START + 1 + wait) is None


@pytest.mark.parametrize("at", [0.0, 0.5, 30.0, 59.9])
@pytest.mark.parametrize(("earlier", "spent"), [(0, 100), (100, 0), (50, 50), (200, 0), (0, 101)])
def test_the_wait_for_tokens_is_enough_also_if_exactly_the_limit_is_spent(at: float, earlier: int, spent: int) -> None:
    limits, key = Limits(), replace(KEY, tokens_per_minute=100)
    limits.spend_tokens(key, earlier, START - 60)
    limits.spend_tokens(key, spent, START + at)
    wait = taken(limits, key, START + at)
    if wait is not None:
        assert taken(limits, key, START + at + wait) is None
        assert wait == 1 or taken(limits, key, START + at + wait - 1.1) is not None


@given(
    limit=st.integers(1, 50), steps=st.lists(st.floats(0, 30, allow_nan=False), max_size=200), begin=st.floats(0, 1e6)
)
def test_no_minute_of_the_clock_has_more_requests_than_allowed(limit: int, steps: list[float], begin: float) -> None:
    limits, key, now = Limits(), replace(KEY, requests_per_minute=limit), begin
    let_through: dict[int, int] = {}
    for step in steps:
        now += step
        if taken(limits, key, now) is None:
            let_through[int(now // 60)] = let_through.get(int(now // 60), 0) + 1
    assert bool(let_through) == bool(steps) and max(let_through.values(), default=0) <= limit


@given(
    before=st.integers(0, 10**6),
    now_spent=st.integers(0, 10**6),
    at=st.floats(0, 59.9),
    limit=st.integers(0, 10**6),
)
def test_after_the_wait_there_is_room(before: int, now_spent: int, at: float, limit: int) -> None:
    spent, now = MinuteAmounts(10_000, before, now_spent), START + at
    wait = wait_seconds(spent, now, limit)
    assert 0 <= wait <= 120
    later = now + wait + 0.001
    minutes = int(later // 60) - 10_000
    moved = (spent, MinuteAmounts(10_001, now_spent, 0), MinuteAmounts(10_002, 0, 0))[minutes]
    assert spent_in_window(moved, later) <= limit + 1e-6 * (1 + limit)


def test_counts_of_minutes_long_gone_are_thrown_away() -> None:
    meter = LocalMeter()
    for number in range(MIN_SWEEP):
        meter.add(str(number), 1, 1)
    meter.add("last", 100, 1)
    assert list(meter._spent) == ["last"]


def test_a_clock_that_is_set_back_forgets_nothing() -> None:
    meter = LocalMeter()
    meter.add("a", 100, 5)
    meter.add("a", 99, 1)
    assert meter.read("a", 99) == meter.read("a", 100) == MinuteAmounts(100, 0, 6)


def test_a_permit_is_given_back_however_the_block_ends() -> None:
    permits, limited = Permits(), route(request_limits=1)
    with pytest.raises(ZeroDivisionError), permits.permit(limited):
        assert permits.held("m") == 1
        raise ZeroDivisionError
    assert permits.held("m") == 0
    with permits.permit(limited), pytest.raises(Refusal) as caught, permits.permit(limited):
        pass
    assert caught.value.cause == "Rate limit reached for the model. Request limit 1 for the model: m"
    assert permits.held("m") == 0


def test_an_adapter_takes_its_models_permits() -> None:
    permits = Permits()
    adapter = route(uid="lora", parent="m", request_limits=1)
    with permits.permit(route(request_limits=1)), pytest.raises(Refusal) as caught, permits.permit(adapter):
        pass
    assert caught.value.cause.endswith("for the model: m")


def test_a_limit_of_none_takes_no_request_at_all() -> None:
    with pytest.raises(Refusal), Permits().permit(route(request_limits=0)):
        pass


def _quota(of: Served | Gateway) -> LocalQuota:
    quota = (of.gateway if isinstance(of, Served) else of).quota
    assert isinstance(quota, LocalQuota)
    return quota


@pytest.mark.process
async def test_the_model_takes_no_more_at_once_than_its_limit_and_more_afterwards() -> None:
    async with start_fake_engine(delay=0.5) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), request_limits=2))
        async with served(router) as gateway:
            answers = await asyncio.gather(*(gateway.post("/v1/chat/completions", CHAT) for _ in range(5)))
            assert sorted(status for status, _, _ in answers) == [200, 200, 429, 429, 429]
            refused = next((body, headers) for status, body, headers in answers if status == 429)
            limit = "Rate limit reached for the model. Request limit 2 for the model: m"
            assert refused[0]["detail"].startswith(limit) and "Retry in 1 second." in refused[0]["detail"]
            assert refused[0]["error"]["type"] == "rate_limit_error"
            assert refused[1]["retry-after"] == "1"
            assert (await gateway.post("/v1/chat/completions", CHAT))[0] == 200
            assert _quota(gateway).permits.held("m") == 0


@pytest.mark.process
async def test_a_client_that_leaves_gives_its_permit_back() -> None:
    async with start_fake_engine(chunks=1000, interval=0.05) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), request_limits=1))
        async with served(router) as gateway:
            async with gateway.http.post(gateway.url + "/v1/chat/completions", json=STREAM) as response:
                await response.content.readany()
                assert _quota(gateway).permits.held("m") == 1
            await until_async("the permits are released", lambda: _quota(gateway).permits.held("m") == 0)


@pytest.mark.process
async def test_a_request_that_is_refused_by_the_engine_or_has_none_gives_its_permit_back() -> None:
    async with start_fake_engine(status=400, body={"error": {"message": "x"}}) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), request_limits=1))
        async with gateway_of(router) as gateway:
            assert (await call(gateway, "/v1/chat/completions", BODY)).status == 400
            router.publish(route(request_limits=1, stage="fetch"))
            assert (await call(gateway, "/v1/chat/completions", BODY)).status == 503
            assert _quota(gateway).permits.held("m") == 0


async def test_a_key_over_its_requests_is_429_before_its_body_is_read() -> None:
    router = HandMadeRouter()
    router.publish(route(stage="fetch"))
    async with gateway_of(router, keys=OneKey(requests_per_minute=1)) as gateway:
        assert (await call(gateway, "/v1/chat/completions", BODY, headers=BEARER)).status == 503
        said = await call(gateway, "/v1/chat/completions", b"not JSON", headers=BEARER)
        listed = await call(gateway, "/v1/models", method="GET", headers=BEARER)
    assert (said.status, said.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "for the key k: 1 requests per minute." in said.json["error"]["message"]
    seconds = int(said.headers[b"retry-after"])
    assert 1 <= seconds <= 120
    assert said.json["error"]["type"] == "rate_limit_error"
    assert f"Retry in {seconds} second" in said.json["error"]["message"]
    assert listed.status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_a_request_for_a_model_that_the_key_may_not_use_does_not_count(path: str) -> None:
    router = HandMadeRouter()
    router.publish(route(stage="fetch"), route(uid="other", stage="fetch"))
    body = {"model": "other", "messages": CHAT["messages"], "max_tokens": 1, "input": "hi"}
    keys = OneKey(requests_per_minute=1, models=frozenset({"m"}))
    async with gateway_of(router, keys=keys) as gateway:
        for _ in range(3):
            assert (await call(gateway, path, json.dumps(body).encode(), headers=BEARER)).status == 403
        assert (await call(gateway, "/v1/chat/completions", BODY, headers=BEARER)).status == 503
        assert (await call(gateway, "/v1/chat/completions", BODY, headers=BEARER)).status == 429


def test_a_request_that_is_given_back_never_makes_a_minute_negative() -> None:
    limits, key = Limits(), replace(KEY, requests_per_minute=1)
    assert taken(limits, key, START + 59) is None
    limits.give_back_request(key, START + 59)
    assert taken(limits, key, START + 59) is None
    meter = LocalMeter()
    meter.add("a", 100, -1)
    assert meter.read("a", 100).now == 0


def test_the_text_of_a_refusal_says_when_to_retry() -> None:
    one, more = (Refusal(Code.MODEL_LOADING, "It is loading.", retry_after=seconds) for seconds in (1, 46))
    assert str(one).endswith("Retry in 1 second.") and str(more).endswith("Retry in 46 seconds.")
    hinted = Refusal(Code.MODEL_LOADING, "It is loading.", hint="Launch it.", retry_after=2)
    assert hinted.hint == "Launch it. Retry in 2 seconds." and dict(hinted.headers)[b"retry-after"] == b"2"


@pytest.mark.process
@pytest.mark.parametrize("stream", [False, True])
async def test_the_tokens_of_an_answer_count_against_its_key(stream: bool) -> None:
    async with start_fake_engine() as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine)))
        async with gateway_of(router, keys=OneKey(tokens_per_minute=3)) as gateway:
            body = json.dumps(STREAM if stream else CHAT).encode()
            assert (await call(gateway, "/v1/chat/completions", body, headers=BEARER)).status == 200
            spent = _quota(gateway).limits._meter.read("tokens k1", int(time.monotonic() // 60))
            assert spent.now + spent.before >= 3
            assert (await call(gateway, "/v1/chat/completions", body, headers=BEARER)).status == 429


@pytest.mark.process
@pytest.mark.parametrize("path", ["/apply-template", "/v1/messages/count_tokens"])
async def test_counting_tokens_spends_none(path: str) -> None:
    async with start_fake_engine(echo=True) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), paths=frozenset({path})))
        async with gateway_of(router, keys=OneKey(tokens_per_minute=1)) as gateway:
            headers = BEARER | {"anthropic-version": "2023-06-01"}
            for _ in range(2):
                assert (await call(gateway, path, BODY, headers=headers)).status == 200


async def test_a_clock_that_is_set_back_lets_no_key_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    router = HandMadeRouter()
    router.publish(route(stage="fetch"))
    clock = SimpleNamespace(time=lambda: 1e9, monotonic=lambda: START, perf_counter=time.perf_counter)
    for module in (request_reader, request_admission):
        monkeypatch.setattr(module, "time", clock)
    async with gateway_of(router, keys=OneKey(requests_per_minute=1)) as gateway:
        statuses = []
        for waited, set_back in ((0, 0), (1, 3600), (121, 3600)):
            clock.time = lambda set_back=set_back: 1e9 - set_back
            clock.monotonic = lambda waited=waited: START + waited
            statuses.append((await call(gateway, "/v1/chat/completions", BODY, headers=BEARER)).status)
    assert statuses == [503, 429, 503], "two minutes later the key may ask again, whatever the time of day"


@pytest.mark.process
@pytest.mark.parametrize(("own", "usual"), [(2, 0), (None, 2), (2, 1)])
async def test_a_key_has_no_more_requests_at_once_than_its_limit(own: int | None, usual: int) -> None:
    keys = OneKey(requests_in_flight=own)
    async with start_fake_engine(delay=0.3) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine)))
        async with gateway_of(router, keys=keys, key_requests_in_flight=usual) as gateway:

            async def ask() -> int:
                said = await call(gateway, "/v1/chat/completions", BODY, headers=BEARER)
                if said.status == 429:
                    assert said.headers[b"retry-after"] == b"1" and "2 requests at the same time" in said.json["detail"]
                return said.status

            assert sorted(await asyncio.gather(*(ask() for _ in range(5)))) == [200, 200, 429, 429, 429]
            assert await ask() == 200


def test_permits_of_a_key_are_not_those_of_a_model_of_its_name() -> None:
    permits = Permits()
    permits.take(KEY.key_id, 1)
    with permits.one_of_key(KEY, 1), pytest.raises(Refusal), permits.one_of_key(KEY, 1):
        pass
    with permits.one_of_key(KEY, 1):
        pass
    assert permits.held(KEY.key_id) == 1
