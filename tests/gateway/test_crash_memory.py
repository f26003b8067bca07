from __future__ import annotations

import asyncio

import pytest

from tests.gateway.harness import route
from xinference.gateway.crash_memory import (
    LEFT_SECONDS,
    MAX_REQUESTS,
    REMEMBERED_SECONDS,
    CrashMemory,
    RequestKey,
    is_listening,
)
from xinference.routing.table import Target

PATH = "/v1/chat/completions"


def replica(n: int) -> Target:
    return Target(f"r{n}", f"http://127.0.0.1:{n + 1}", "k")


def test_only_the_request_of_that_model_path_and_body_is_refused() -> None:
    memory = CrashMemory()
    assert not memory.suspects
    memory.add(route(), replica(0), PATH, b"a", in_flight=1)
    assert memory.is_refused(route(), PATH, b"a")
    assert not memory.is_refused(route(), PATH, b"b")
    assert not memory.is_refused(route(), "/v1/completions", b"a")
    assert not memory.is_refused(route(uid="other"), PATH, b"a")


def test_of_several_requests_at_one_crash_none_is_refused_after_it() -> None:
    memory = CrashMemory()
    for n, body in enumerate((b"a", b"b", b"c")):
        memory.add(route(), replica(0), PATH, body, in_flight=3 - n)
    assert not any(memory.is_refused(route(), PATH, body) for body in (b"a", b"b", b"c"))
    memory.add(route(), replica(1), PATH, b"b", in_flight=2)
    assert memory.is_refused(route(), PATH, b"b") and not memory.is_refused(route(), PATH, b"a")


def test_it_forgets_after_a_time_and_keeps_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("xinference.gateway.crash_memory.time.monotonic", lambda: now)
    memory = CrashMemory()
    memory.add(route(), replica(0), PATH, b"a", in_flight=1)
    now += REMEMBERED_SECONDS - 1
    assert memory.is_refused(route(), PATH, b"a")
    now += 2
    assert not memory.is_refused(route(), PATH, b"a")
    for n in range(MAX_REQUESTS + 1):
        memory.add(route(), replica(n), PATH, b"%d" % n, in_flight=1)
    assert not memory.is_refused(route(), PATH, b"0") and memory.is_refused(route(), PATH, b"1")


async def test_an_engine_listens_that_keeps_its_connections() -> None:
    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    for handler, listens in ((keep, True), (close, False)):
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        target = Target("r", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "k")
        async with server:
            assert await is_listening(target) is listens
        assert not await is_listening(target)


LEFT = b"left"


def test_a_request_whose_client_left_may_be_the_cause_too() -> None:
    memory = CrashMemory()
    memory.leave(route(), replica(0), PATH, LEFT)
    memory.add(route(), replica(0), PATH, b"a", in_flight=1)
    assert not memory.is_refused(route(), PATH, b"a") and not memory.is_refused(route(), PATH, LEFT)
    memory.add(route(), replica(1), PATH, LEFT, in_flight=2)
    assert memory.is_refused(route(), PATH, LEFT) and not memory.is_refused(route(), PATH, b"a")


def test_a_request_that_came_again_after_its_client_left_is_alone() -> None:
    memory = CrashMemory()
    memory.leave(route(), replica(0), PATH, b"a")
    memory.add(route(), replica(0), PATH, b"a", in_flight=1)
    assert memory.is_refused(route(), PATH, b"a")


def test_a_client_that_left_another_replica_or_long_ago_is_no_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("xinference.gateway.crash_memory.time.monotonic", lambda: now)
    memory = CrashMemory()
    memory.leave(route(), replica(0), PATH, LEFT)
    memory.leave(route(), replica(1), PATH, LEFT)
    memory.add(route(), replica(2), PATH, b"a", in_flight=1)
    assert memory.is_refused(route(), PATH, b"a")
    now += LEFT_SECONDS + 1
    memory.add(route(), replica(0), PATH, b"b", in_flight=1)
    assert memory.is_refused(route(), PATH, b"b")


def test_reports_of_several_processes_are_judged_together() -> None:
    first, second = (("m", 0.0, digest) for digest in (b"a", b"b"))
    memory = CrashMemory()
    assert memory.judge("r0", [(first, 1), (second, 1)]) == [(first, 1), (second, 1)]
    assert memory.judge("r1", [(first, 1)]) == [(first, 2)]
    assert memory.judge("r1", [(second, 1)]) == [(second, 1)], "a late report of the same crash"
    assert memory.crashes == [(first, 3), (second, 2)]


def test_a_memory_with_reports_leaves_the_judgement_to_them() -> None:
    seen: list[tuple[object, ...]] = []

    class Reports:
        def note_crash(self, replica_id: str, key: RequestKey, in_flight: int) -> None:
            seen.append((replica_id, key[0], in_flight))

        def note_left(self, replica_id: str, key: RequestKey) -> None:
            seen.append((replica_id, key[0]))

    memory = CrashMemory(Reports())
    memory.add(route(), replica(0), PATH, b"a", in_flight=1)
    memory.leave(route(), replica(0), PATH, b"a")
    assert seen == [("r0", "m", 1), ("r0", "m")] and not memory.suspects
