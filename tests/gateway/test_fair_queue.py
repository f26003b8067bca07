"""Who gets a place at a model's engines, and when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from typing import Any

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import CHAT, STREAM, HandMadeRouter, call, gateway_of, raw_engine, route, served, target
from tests.gateway.test_rate_limits import BEARER, OneKey
from tests.routing.routes import TARGET
from tests.support.polling import until_async
from xinference.gateway.fair_queue import MAX_PASSED, MAX_UNUSED, RESERVED_SECONDS, FairQueue, Turn
from xinference.gateway.places import UNKNOWN_SLOTS, Places, places
from xinference.gateway.priority import HIGH, LOW, NORMAL
from xinference.protocol.errors import Refusal
from xinference.routing.table import Target

PATH = "/v1/chat/completions"
BODY = json.dumps(CHAT).encode()


class Users:
    """Clients of one model with `places` places; `order` has who got a place, in that order.

    Requests have their first token at once, unless they are `slow`.
    """

    def __init__(self, places: int | Places, maximum: int = 1000, *, slow: bool = False) -> None:
        self.queue = FairQueue(maximum)
        self.slow = slow
        self.places = Places.equal(places) if isinstance(places, int) else places
        self.levels: dict[str, int] = {}
        self.turns: dict[str, Turn] = {}
        self.order: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def ask(self, client: str, count: int = 1, priority: int = NORMAL) -> None:
        """Requests of a client, named ``a1``, ``a2`` and so on."""
        for _ in range(count):
            number = 1 + sum(name.startswith(client) for name in self.tasks)
            self.levels[f"{client}{number}"] = priority
            self.tasks[f"{client}{number}"] = asyncio.create_task(self._ask(client, f"{client}{number}", priority))

    async def _ask(self, client: str, name: str, priority: int) -> None:
        try:
            if not self.queue.enter("m", client, self.places, priority):
                self.turns[name] = await self.queue.wait("m", client, priority)
        except Refusal as refusal:
            assert (refusal.status, refusal.code, refusal.headers) == (
                429,
                "too_many_waiting",
                ((b"retry-after", b"5"),),
            )
            self.refused.append(name)
            return
        self.order.append(name)
        if priority == HIGH and not self.slow:
            self.begin_answer(name)

    def begin_answer(self, name: str) -> None:
        """A request has its first token."""
        self.queue.begin_answer("m", self.turns[name])

    async def end(self, *names: str) -> None:
        """These requests are answered."""
        for name in names:
            self.queue.leave("m", name[0], self.levels[name], self.turns.get(name))
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def leave(self, *names: str) -> None:
        """These clients leave before they have a place."""
        for name in names:
            self.tasks[name].cancel()
        await self.settle()


async def test_places_are_taken_at_once_while_there_are_any() -> None:
    users = Users(3)
    users.ask("a", 4)
    await users.settle()
    assert users.order == ["a1", "a2", "a3"]
    assert users.queue.is_contended("m") and users.queue.waiting("m") == 1
    assert not users.queue.is_contended("other")
    await users.end("a1")
    assert users.order[3:] == ["a4"] and not users.queue.is_contended("m")


async def test_a_client_with_many_requests_does_not_hold_the_model() -> None:
    users = Users(2)
    users.ask("a", 80)
    await users.settle()
    users.ask("b", 1)
    await users.settle()
    await users.end("a1")
    assert users.order == ["a1", "a2", "b1"]


async def test_clients_get_places_in_turn() -> None:
    users = Users(1)
    users.ask("a", 4)
    users.ask("b", 3)
    users.ask("c", 2)
    await users.settle()
    while users.queue.waiting("m"):
        await users.end(users.order[-1])
    assert users.order == ["a1", "a2", "b1", "c1", "a3", "b2", "c2", "a4", "b3"]


async def test_each_client_gets_an_equal_share_of_the_places() -> None:
    users = Users(4)
    users.ask("a", 20)
    await users.settle()
    users.ask("b", 20)
    await users.settle()
    await users.end("a1", "a2", "a3", "a4")
    assert Counter(name[0] for name in users.order[4:]) == {"a": 2, "b": 2}


async def test_a_high_priority_gets_the_next_place_and_a_low_one_the_last() -> None:
    users = Users(1)
    users.ask("a", 1)
    await users.settle()
    users.ask("l", 1, LOW)
    users.ask("n", 2)
    users.ask("h", 1, HIGH)
    await users.settle()
    while users.queue.waiting("m"):
        await users.end(users.order[-1])
    assert users.order == ["a1", "h1", "n1", "n2", "l1"]


@pytest.mark.parametrize("level", [NORMAL, LOW])
async def test_a_lower_priority_waits_for_a_bounded_number_of_others(level: int) -> None:
    users = Users(1)
    users.ask("h", 2, HIGH)
    await users.settle()
    users.ask("l", 2, level)
    await users.settle()
    while sum(name[0] == "l" for name in users.order) < 2:  # there is always another one of a high priority
        users.ask("h", 1, HIGH)
        await users.settle()
        await users.end(users.order[-1])
    places = [position for position, name in enumerate(users.order) if name[0] == "l"]
    assert places == [MAX_PASSED + 1, 2 * MAX_PASSED + 2]


async def passed(users: Users, *, clients: str) -> None:
    """Let a request with low priority of each client wait until the next place is that of their level."""
    users.ask("h", 1, HIGH)
    await users.settle()
    for client in clients:
        users.ask(client, 1, LOW)
    users.ask("h", MAX_PASSED + 1, HIGH)
    await users.settle()
    for number in range(MAX_PASSED):
        await users.end(f"h{number + 1}")
    assert users.order == [f"h{number + 1}" for number in range(MAX_PASSED + 1)]


async def test_those_that_leave_leave_no_turn_to_a_later_one_of_their_priority() -> None:
    users = Users(1)
    await passed(users, clients="l")
    await users.leave("l1")
    users.ask("m", 1, LOW)
    await users.settle()
    await users.end("h9")
    assert users.order[-1] == "h10"


async def test_a_client_that_leaves_in_the_moment_of_its_turn_leaves_it_to_its_priority() -> None:
    users = Users(1)
    await passed(users, clients="lm")
    users.tasks["l1"].cancel()
    await users.end("h9")
    assert users.order[-1] == "m1"


async def test_all_levels_get_places_under_a_full_queue() -> None:
    users = Users(1)
    for client, level in (("h", HIGH), ("n", NORMAL), ("l", LOW)):
        users.ask(client, 40, level)
    await users.settle()
    while len(users.order) < 40:
        await users.end(users.order[-1])
    counts = Counter(name[0] for name in users.order)
    assert counts["h"] > 25 and counts["n"] >= 3 and counts["l"] >= 3


async def test_a_full_queue_ends_the_wait_of_the_lowest_priority() -> None:
    users = Users(1, maximum=3)
    users.ask("a", 1)
    await users.settle()
    users.ask("l", 2, LOW)
    users.ask("n", 1)
    await users.settle()
    users.ask("h", 3, HIGH)
    await users.settle()
    assert users.refused == ["l2", "l1", "n1"]
    users.ask("l", 1, LOW)
    await users.settle()
    assert users.refused[-1] == "l3"
    assert users.queue.waiting("m") == 3


async def test_a_client_that_leaves_gives_its_turn_to_the_next() -> None:
    users = Users(1)
    users.ask("a", 4)
    await users.settle()
    await users.leave("a2", "a3")
    assert users.queue.waiting("m") == 1
    await users.end("a1")
    assert users.order == ["a1", "a4"]
    await users.end("a4")
    assert users.queue.is_unused


async def test_a_client_that_leaves_in_the_moment_of_its_turn_gives_the_place_back() -> None:
    users = Users(1)
    users.ask("a", 3)
    await users.settle()
    users.queue.leave("m", "a")
    users.tasks["a2"].cancel()
    await users.settle()
    assert users.order == ["a1", "a3"]


async def test_further_requests_are_refused_when_the_queue_is_full() -> None:
    users = Users(1, maximum=3)
    users.ask("a", 6)
    await users.settle()
    assert (users.refused, users.queue.waiting("m")) == (["a5", "a6"], 3)


async def test_a_full_queue_refuses_the_client_with_the_most_requests() -> None:
    users = Users(1, maximum=3)
    users.ask("a", 4)
    await users.settle()
    users.ask("b", 3)
    await users.settle()
    assert sorted(users.refused) == ["a4", "b2", "b3"]
    while users.queue.waiting("m"):
        await users.end(users.order[-1])
    assert users.order == ["a1", "a2", "b1", "a3"]


async def test_places_that_are_added_are_given_to_those_who_wait() -> None:
    users = Users(1)
    users.ask("a", 3)
    await users.settle()
    users.places = Places.equal(4)
    users.ask("b", 1)
    await users.settle()
    assert sorted(users.order) == ["a1", "a2", "a3", "b1"]


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_lost_and_none_is_given_twice(seed: int) -> None:
    chance, users = random.Random(seed), Users(3, maximum=8)
    ended: set[str] = set()
    for _ in range(300):
        what = chance.random()
        running = [name for name in users.order if name not in ended]
        assert len(running) <= 3
        if what < 0.5:
            users.ask(chance.choice("abc"), priority=chance.choice((HIGH, NORMAL, LOW)))
            if chance.random() < 0.5:
                await users.settle()
        elif what < 0.85 and running:
            name = chance.choice(running)
            ended.add(name)
            await users.end(name)
        elif users.tasks:
            users.tasks[chance.choice(list(users.tasks))].cancel()
        await users.settle()
        running = [name for name in users.order if name not in ended]
        assert len(running) == 3 or not users.queue.waiting("m")
    for _ in range(500):
        running = [name for name in users.order if name not in ended]
        if not running:
            break
        ended.update(running)
        await users.end(*running)
    assert users.queue.is_unused


def test_models_that_are_gone_leave_nothing() -> None:
    queue, one = FairQueue(1), Places.equal(1)
    assert queue.enter("used", "a", one)
    for number in range(1000):
        assert queue.enter(str(number), "a", one)
        queue.leave(str(number), "a")
    assert len(queue._models) <= MAX_UNUSED and not queue.enter("used", "a", one)


async def test_a_request_with_high_priority_does_not_wait_for_those_that_wait_at_the_engine() -> None:
    users = Users(places(route(TARGET, slots=2)))
    users.ask("n", 9)
    await users.settle()
    assert users.order == ["n1", "n2", "n3"]
    users.ask("h", 3, HIGH)
    await users.settle()
    assert users.order[3:] == ["h1"]  # the engine computes two, and has to take h1 before n3
    await users.end("n1", "n2")
    assert users.order[4:] == ["h2", "h3"]


async def test_one_with_low_priority_never_waits_at_the_engine() -> None:
    users = Users(places(route(TARGET, slots=2)))
    users.ask("l", 4, LOW)
    users.ask("n", 2)
    await users.settle()
    assert users.order == ["l1", "l2", "n1"]


async def test_after_a_high_priority_a_slot_of_each_replica_stays_free_for_the_next() -> None:
    users = Users(places(route(TARGET, TARGET, slots=4)))
    users.ask("n", 40)
    await users.settle()
    assert len(users.order) == 10
    users.ask("h", 1, HIGH)
    await users.settle()
    assert users.order[10:] == ["h1"]
    await users.end(*users.order[:10])
    assert len(users.order) == 17  # six beside the one with high priority
    await users.end("h1")
    assert len(users.order) == 17
    for number in (2, 3):
        users.ask("h", 1, HIGH)
        await users.settle()
        assert users.order[-1] == f"h{number}"
    await users.end("h2", "h3", "n11", "n12")
    assert users.order[-2:] == ["n17", "n18"]


async def with_reservation() -> Users:
    """Clients of a model with four slots, after a request with high priority has ended."""
    users = Users(places(route(TARGET, slots=4)))
    users.ask("h", 1, HIGH)
    await users.settle()
    await users.end("h1")
    return users


async def test_the_reserved_slot_is_for_all_again_after_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    users = await with_reservation()
    users.ask("n", 5)
    await users.settle()
    assert users.order == ["h1", "n1", "n2", "n3"]
    now += RESERVED_SECONDS - 1
    await users.end("n1")
    assert users.order[4:] == ["n4"]
    now += 1
    await users.end("n2")
    assert users.order[5:] == ["n5"]
    users.ask("n", 3)
    await users.settle()
    assert users.order[6:] == ["n6", "n7"]


async def test_the_end_of_the_reservation_is_seen_without_another_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xinference.gateway.fair_queue.RESERVED_SECONDS", 0.2)
    users = Users(places(route(TARGET, slots=4)), slow=True)
    users.ask("h", 1, HIGH)
    await users.settle()
    users.ask("n", 4)
    users.begin_answer("h1")
    await users.settle()
    assert users.order == ["h1", "n1", "n2", "n3"]
    await until_async("it has a place", lambda: users.order[4:] == ["n4"], seconds=5)
    users.ask("n", 1)
    await users.settle()
    assert users.queue._models["m"].reserved_until == 0  # and the next request needs no look at the clock


async def test_requests_with_high_priority_in_the_reserved_slot_pass_nobody() -> None:
    users = await with_reservation()
    users.ask("n", 9)
    await users.settle()
    for _ in range(3 * MAX_PASSED):
        users.ask("h", 1, HIGH)
        await users.settle()
        await users.end(users.order[-1])
    assert [name for name in users.order if name[0] == "n"] == ["n1", "n2", "n3"]
    await users.end("n1")
    assert users.order[-1] == "n4"


async def test_a_flood_of_high_priority_leaves_others_their_turn() -> None:
    users = Users(places(route(TARGET, slots=4)))
    users.ask("h", 60, HIGH)
    users.ask("n", 10)
    users.ask("l", 10, LOW)
    await users.settle()
    ended = 0
    while len(users.order) < 50:
        await users.end(users.order[ended])
        ended += 1
    counts = Counter(name[0] for name in users.order)
    assert counts["n"] >= 3 and counts["l"] >= 3


async def test_no_other_prompt_begins_before_the_first_token_of_a_high_priority() -> None:
    users = Users(places(route(TARGET, slots=4)), slow=True)
    users.ask("n", 1)
    users.ask("h", 1, HIGH)
    users.ask("n", 1)
    users.ask("h", 1, HIGH)
    await users.settle()
    await users.end("n1")
    assert users.order == ["n1", "h1", "h2"]
    users.begin_answer("h2")
    await users.settle()
    assert users.order[3:] == []
    users.begin_answer("h1")
    await users.settle()
    assert users.order[3:] == ["n2"]


async def test_the_end_of_a_high_priority_lets_no_other_prompt_begin_beside_that_of_the_next() -> None:
    users = Users(places(route(TARGET, slots=4)), slow=True)
    users.ask("h", 1, HIGH)
    await users.settle()
    users.begin_answer("h1")
    users.ask("h", 1, HIGH)
    await users.settle()
    users.ask("n", 1)
    await users.end("h1")
    assert users.order == ["h1", "h2"]
    users.begin_answer("h2")
    await users.settle()
    assert users.order == ["h1", "h2", "n1"]


async def test_others_begin_if_a_high_priority_ends_without_a_token() -> None:
    users = Users(places(route(TARGET, slots=4)), slow=True)
    users.ask("h", 1, HIGH)
    users.ask("n", 1)
    await users.settle()
    assert users.order == ["h1"]
    await users.end("h1")
    assert users.order == ["h1", "n1"]


async def test_others_wait_a_bounded_time_for_the_first_token_of_a_high_priority(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xinference.gateway.fair_queue.ALONE_SECONDS", 0.05)
    users = Users(places(route(TARGET, slots=4)), slow=True)
    users.ask("h", 1, HIGH)
    users.ask("n", 1)
    await users.settle()
    assert users.order == ["h1"]
    await until_async("it has a place", lambda: users.order == ["h1", "n1"], seconds=5)


async def test_many_short_requests_of_a_high_priority_do_not_hold_others_back_for_ever() -> None:
    users = Users(places(route(TARGET, slots=4)), slow=True)
    users.ask("h", 1, HIGH)
    users.ask("n", 1)
    await users.settle()
    while "n1" not in users.order:
        users.ask("h", 1, HIGH)
        await users.settle()
        users.queue.leave("m", "h", HIGH)
        users.queue._models["m"].silent[asyncio.Future()] = float("inf")  # another one has just begun
        await users.settle()
    assert len(users.order) <= MAX_PASSED + 4


async def test_a_free_place_is_given_although_no_request_may_wait() -> None:
    users = Users(places(route(TARGET, slots=4)), maximum=0)
    users.ask("h", 2, HIGH)
    users.ask("l", 1, LOW)
    users.ask("n", 3)
    await users.settle()
    assert (users.order, users.refused) == (["h1", "h2", "l1", "n1", "n2"], ["n3"])


def test_an_engine_gets_a_few_requests_more_than_it_computes() -> None:
    assert places(route(TARGET, slots=4)) == Places((6, 5, 4), unreserved=3)
    assert places(route(TARGET, slots=1)) == Places((3, 2, 1), unreserved=2)
    assert places(route(TARGET, TARGET, slots=16)) == Places((48, 40, 32), unreserved=30)
    assert places(route(TARGET)).of_level[NORMAL] > UNKNOWN_SLOTS


# -- in the gateway ---------------------------------------------------------------------------------------------


@pytest.mark.process
async def test_a_key_is_answered_while_another_one_has_many_requests_waiting() -> None:
    async with start_fake_engine(delay=0.05) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), slots=1))
        async with gateway_of(router) as gateway:
            queue = gateway._forwarder.queue
            many = [asyncio.create_task(asked(gateway, "10.0.0.1")) for _ in range(40)]
            await until_async("they wait", lambda: queue.waiting("m") == 38)
            assert await asked(gateway, "10.0.0.2") == 200
            assert queue.waiting("m") > 30
            assert set(await asyncio.gather(*many)) == {200}
            assert queue.is_unused


async def test_requests_with_one_key_from_several_addresses_have_one_turn() -> None:
    keys = OneKey()
    router = HandMadeRouter()
    router.publish(route(TARGET, slots=1))
    async with gateway_of(router, keys=keys) as gateway:
        queue = gateway._forwarder.queue
        assert queue.enter("m", "a", Places.equal(2)) and queue.enter("m", "a", Places.equal(2))
        asking = [asyncio.create_task(asked(gateway, f"10.0.0.{n}", BEARER)) for n in range(3)]
        await until_async("they wait", lambda: queue.waiting("m") == 3)
        assert [*queue._models["m"].levels[NORMAL]] == ["k1"]
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


@pytest.mark.process
async def test_clients_that_do_not_read_their_streams_do_not_hold_a_model() -> None:
    big: dict[str, Any] = {"chunks": 400, "text": "word " * 2000, "usage": False}
    async with start_fake_engine(**big) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), slots=2))
        async with served(router, write_seconds=1.0) as gateway:
            port = int(gateway.url.rpartition(":")[2])
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(12):
                    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
                    stack.callback(writer.close)
                    transport: Any = writer.transport
                    transport.pause_reading()
                    writer.write(stream_request())
                await until_async("they wait", lambda: gateway.gateway._forwarder.queue.is_contended("m"))
                assert (await gateway.post(PATH, CHAT | {"max_tokens": 1}))[0] == 200


async def test_requests_that_compute_nothing_do_not_wait() -> None:
    body = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"tokens":[]}'
    async with raw_engine(body) as engine:
        router = HandMadeRouter()
        router.publish(route(engine, slots=1, paths=frozenset({"/tokenize", PATH})))
        async with gateway_of(router) as gateway:
            queue = gateway._forwarder.queue
            assert queue.enter("m", "a", Places.equal(1))
            assert (await call(gateway, "/tokenize", b'{"model": "m", "prompt": "a"}')).status == 200


async def test_a_full_queue_is_a_429_with_the_time_to_wait() -> None:
    router = HandMadeRouter()
    router.publish(route(TARGET, slots=1))
    async with gateway_of(router, max_queued_requests=0) as gateway:
        assert gateway._forwarder.queue.enter("m", "a", Places.equal(2)) and gateway._forwarder.queue.enter(
            "m", "a", Places.equal(2)
        )
        said = await call(gateway, PATH, BODY)
        assert (said.status, said.json["error"]["code"]) == (429, "too_many_waiting")
        assert said.headers[b"retry-after"] == b"5"


async def test_a_request_that_waited_goes_to_the_model_of_the_newest_table() -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    async with raw_engine(body) as engine:
        router = HandMadeRouter()
        router.publish(route(Target("gone", "http://127.0.0.1:9", "key"), slots=1))
        async with gateway_of(router) as gateway:
            queue = gateway._forwarder.queue
            assert queue.enter("m", "a", Places.equal(2)) and queue.enter("m", "a", Places.equal(2))
            asking = asyncio.create_task(call(gateway, PATH, BODY))
            await until_async("it waits", lambda: queue.waiting("m") == 1)
            router.publish(route(engine, slots=1))
            queue.leave("m", "a")
            assert (await asking).status == 200


async def test_a_request_that_waited_is_refused_if_its_like_has_crashed_the_engine_meanwhile() -> None:
    router = HandMadeRouter()
    router.publish(route(TARGET, slots=1))
    async with gateway_of(router) as gateway:
        queue = gateway._forwarder.queue
        assert queue.enter("m", "a", Places.equal(2)) and queue.enter("m", "a", Places.equal(2))
        asking = asyncio.create_task(call(gateway, PATH, BODY))
        await until_async("it waits", lambda: queue.waiting("m") == 1)
        gateway._forwarder._crashes.add(router.current.routes["m"], TARGET, PATH, BODY, 1)
        queue.leave("m", "a")
        said = await asking
        assert (said.status, said.json["error"]["code"]) == (502, "request_crashes_engine")
        queue.leave("m", "a")
        assert queue.is_unused


async def asked(gateway: Any, address: str, headers: dict[str, str] | None = None) -> int:
    """The status of a chat of a client at this address."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gateway(scope | {"client": (address, 1)}, receive, send)

    return (await call(app, PATH, BODY, headers=headers)).status


def stream_request() -> bytes:
    body = json.dumps(STREAM).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
