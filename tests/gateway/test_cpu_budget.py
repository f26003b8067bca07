"""What a request and a chunk may cost, so that the data path does not get dearer a little at a time.

Two measures. Calls of functions, Python's and C's, are counted: exact, but without what goes on inside a C function.
CPU time is divided by that of a bare server that does the same work beside it, round by round. The median is the same
within a tenth on a busy machine and an idle one, but another processor or interpreter may have another ratio: the tests
of CPU time have the mark `measured`, and only `make bench-budget` runs them. A change that is worth more than its share
of the budget writes its figures down here, and what it was worth in the commit.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest
import uvloop

from tests.gateway.bare import BareServer
from tests.gateway.harness import CHAT
from tests.gateway.wire import DataPath, data_path, request_of
from xinference.gateway import app, request_records
from xinference.gateway.http.request_figures import RequestFigures

#: Multiples of what the bare server spends, as measured (medians of twenty runs on a machine with all cores busy).
REQUEST, CHUNK = 2.18, 1.07
#: Function calls, as counted.
#: Of the calls of a request, 20 make its record, with those of other requests: 3 us. Of those of a chunk, none.
REQUEST_CALLS, CHUNK_CALLS = 249, 18
#: Calls of a request that make its record; those of a chunk are none.
RECORD_CALLS = 21
#: A rise above this fails. Calls are exact, and differ a little between versions of the interpreter and of uvicorn.
RISE, CALLS_RISE = 1.25, 1.08

#: A round is shorter than the kernel's slice of time, so that most rounds have the core to themselves.
ROUNDS = 200
REQUESTS, EVENTS = 10, 200


@dataclass(frozen=True)
class Cost:
    """Multiples of the bare server's cost, or calls."""

    request: float
    chunk: float


@pytest.mark.measured
def test_the_path_costs_no_more_than_its_budget() -> None:
    cost = _cheapest_of(3)
    assert cost.request < REQUEST * RISE, f"a request costs {cost.request:.2f} of a bare one, the budget is {REQUEST}"
    assert cost.chunk < CHUNK * RISE, f"a chunk costs {cost.chunk:.2f} of a bare one, the budget is {CHUNK}"


def test_the_path_makes_no_more_calls_than_its_budget() -> None:
    calls = uvloop.run(count())
    request, chunk = REQUEST_CALLS * CALLS_RISE, CHUNK_CALLS * CALLS_RISE
    assert calls.request < request, f"a request makes {calls.request} calls, at most {request:.0f} are allowed"
    assert calls.chunk < chunk, f"a chunk makes {calls.chunk} calls, at most {chunk:.0f} are allowed"


def test_the_record_of_a_request_makes_no_more_calls_than_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    with_records = uvloop.run(count())
    monkeypatch.setattr(app, "Recorder", NoRecorder)
    without = uvloop.run(count())
    request, chunk = with_records.request - without.request, with_records.chunk - without.chunk
    assert 0 < request < RECORD_CALLS * CALLS_RISE, f"the record of a request makes {request} calls"
    assert abs(chunk) < 0.1, f"the record of a stream makes {chunk} calls a chunk"


TOOL = {"type": "function", "function": {"name": "one", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "c", "type": "function", "function": {"name": "one", "arguments": "{}"}}
TURN = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
#: Chats that engines read as they are, and the calls that each may make more than a short one.
CHATS: list[tuple[dict[str, Any], int]] = [
    (CHAT | {"messages": [*TURN * 40, TURN[0]]}, 0),
    (CHAT | {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, 0),
    (CHAT | {"tools": [TOOL] * 40, "tool_choice": "auto"}, 2),
    (CHAT | {"messages": [TURN[0], {"role": "assistant", "content": None, "tool_calls": [CALL]}, *TURN[:1]]}, 13),
    (CHAT | {"enable_thinking": False}, 10),
    (CHAT | {"chat_template_kwargs": {"enable_thinking": False}}, 2),
    (CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}}, 4),
]


KINDS = ["long", "parts", "tools", "calls", "thinking", "arguments", "format"]


@pytest.mark.parametrize(("body", "more"), CHATS, ids=KINDS)
def test_a_chat_in_the_common_form_makes_the_calls_of_a_short_one(body: dict[str, Any], more: int) -> None:
    short, other = uvloop.run(count_chats(request_of(CHAT), request_of(body)))
    assert other <= short + more, f"the chat makes {other} calls, a short one {short}"


class NoRecorder(request_records.Recorder):
    """Makes no record."""

    def begin(self, path: str, key_id: str) -> RequestFigures:
        return RequestFigures()

    def end(self, figures: RequestFigures, status: int) -> None:
        """The request leaves nothing."""


def test_a_path_that_does_half_as_much_again_makes_more_calls_than_its_budget() -> None:
    calls = uvloop.run(count(more=0.5))
    assert calls.request > REQUEST_CALLS * CALLS_RISE
    assert calls.chunk > CHUNK_CALLS * CALLS_RISE


@pytest.mark.measured
def test_a_path_that_does_half_as_much_again_is_over_its_budget() -> None:
    cost = uvloop.run(measure(more=0.5))
    assert cost.request > REQUEST * RISE
    assert cost.chunk > CHUNK * RISE


def _cheapest_of(attempts: int) -> Cost:
    """The first cost within the budget, or the last: what is really dearer is so each time."""
    for _ in range(attempts):
        cost = uvloop.run(measure())
        if cost.request < REQUEST * RISE and cost.chunk < CHUNK * RISE:
            break
    return cost


async def measure(more: float = 0.0) -> Cost:
    """Both costs, as medians of rounds in which the path and the bare server take turns.

    Args:
        more: share of its work that the path does again, uncounted.
    """
    requests, chunks = [], []
    again, events_again = round(REQUESTS * more), round(EVENTS * more)
    async with data_path() as path:
        bare = BareServer()
        for server in (path, bare):
            await _chats(server, REQUESTS)
            await server.stream(EVENTS)
        gc.collect()
        gc.disable()
        try:
            for _ in range(ROUNDS):
                one = await _timed(_chats(bare, REQUESTS))
                requests.append(await _timed(_chats(path, REQUESTS + again)) / one)
                one = await _timed(bare.stream(EVENTS))
                chunks.append(await _timed(path.stream(EVENTS + events_again)) / one)
        finally:
            gc.enable()
    return Cost(statistics.median(requests), statistics.median(chunks))


async def count(more: float = 0.0) -> Cost:
    """Calls of functions for a request and for a chunk.

    Args:
        more: share of its work that the path does again, without being credited for it.
    """
    calls = 0

    def note(_frame: FrameType, event: str, _of: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    async def counted(work: Awaitable[None]) -> int:
        nonlocal calls
        calls = 0
        sys.setprofile(note)
        try:
            await work
        finally:
            sys.setprofile(None)
        return calls

    # So that the records of all requests are made within the count, and of no other.
    async with data_path() as path, batches_of(REQUESTS):
        await path.chat()
        await path.stream(1)
        path.gateway.recorder.flush()
        chats = await counted(_chats(path, REQUESTS + round(REQUESTS * more)))
        chunks = await counted(path.stream(EVENTS + round(EVENTS * more) + 1)) - await counted(path.stream(1))
    return Cost(chats / REQUESTS, chunks / EVENTS)


async def count_chats(*requests: bytes) -> list[int]:
    """Calls of functions for each of these chats, without those that make its record.

    The fewest of several times: a timer of the gateway may run during one of them.
    """
    events: list[str] = []

    def note(_frame: FrameType, event: str, _of: object) -> None:
        events.append(event)

    async def counted(path: DataPath, request: bytes) -> int:
        events.clear()
        sys.setprofile(note)
        try:
            await path.chat(request)
        finally:
            sys.setprofile(None)
        return events.count("call") + events.count("c_call")

    async with data_path() as path, batches_of(1000):
        for request in requests:
            await path.chat(request)
        return [min([await counted(path, request) for _ in range(5)]) for request in requests]


@contextlib.asynccontextmanager
async def batches_of(size: int) -> AsyncIterator[None]:
    """Make the records of this number of requests together while the block runs."""
    before, request_records.BATCH = request_records.BATCH, size
    try:
        yield
    finally:
        request_records.BATCH = before


async def _chats(server: DataPath | BareServer, requests: int) -> None:
    for _ in range(requests):
        await server.chat()


async def _timed(work: Awaitable[None]) -> float:
    """Seconds of CPU time that `work` takes."""
    started = time.thread_time()
    await work
    return time.thread_time() - started
