"""What the server and its gateway processes say to each other, without the processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from typing import Any, cast

import pytest

from tests.gateway.harness import HandMadeRouter, route
from xinference.errors import Problem
from xinference.gateway.metrics import Counted
from xinference.gateway.rate_limits import LocalQuota
from xinference.gateway.workers import pool
from xinference.gateway.workers.ipc import (
    FROM_SERVER,
    Cancel,
    EnsureReady,
    Granted,
    Ready,
    Refused,
    Reported,
    Seen,
    Table,
    Taken,
    TakePermit,
    TakeRequest,
    packed,
)
from xinference.gateway.workers.proxies import Remote
from xinference.gateway.workers.worker_handle import Shared, WorkerProcess
from xinference.keys.key import Key
from xinference.keys.secret import digest
from xinference.protocol.errors import Refusal
from xinference.routing.table import Target

HERE = Target("r0", "http://127.0.0.1:1", "engine's key")
KEY = Key("k1", "k", digest(b"secret"), frozenset({"use"}), models=frozenset({"m"}), requests_per_minute=1)


class Recorded:
    """A link that keeps what is sent; nothing comes but what a test says."""

    def __init__(self, *coming: Any) -> None:
        self.sent: list[Any] = []
        self.coming = coming

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def close(self) -> None:
        self.sent.append("closed")

    async def messages(self) -> Any:
        for message in self.coming:
            yield message
            for _ in range(5):  # turns in which it is dealt with
                await asyncio.sleep(0)


def remote() -> tuple[Remote, list[Any]]:
    link = Recorded()
    return Remote(cast(Any, link)), link.sent


def table(*targets: Target, **changes: Any) -> Table:
    return Table(1, {"m": route(*targets, **changes)}, b"[]", [KEY], True)


def process(router: HandMadeRouter, *coming: Any) -> tuple[WorkerProcess, list[Any]]:
    link = Recorded(*coming)
    shared = Shared(router, LocalQuota(), lambda reported: None)
    return WorkerProcess(cast(subprocess.Popen[bytes], None), cast(Any, link), shared), link.sent


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_table_arrives_as_it_was() -> None:
    problem = Problem("engine_died", 503, "It died.", stage="start", hint="Look.", log_tail=["a", "b"])
    sent = table(HERE, problem=problem, adapters=("lora",), request_limits=3)
    found = FROM_SERVER.decode(packed(sent)[4:])
    assert isinstance(found, Table) and found.keys == [KEY]
    assert found.routes["m"].problem is not None and found.routes["m"].problem.to_dict() == problem.to_dict()
    assert (found.routes["m"].targets, found.routes["m"].paths) == ((HERE,), sent.routes["m"].paths)
    assert found.routes["m"].description == sent.routes["m"].description


def test_a_refusal_arrives_with_its_headers() -> None:
    refusal = Refusal("rate_limit_exceeded", 429, "Too many.", hint="Later.", retry_after=7)
    found = FROM_SERVER.decode(packed(Refused.of(1, refusal))[4:])
    assert isinstance(found, Refused)
    again = found.refusal
    assert (again.code, again.status, str(again), again.headers) == (
        *("rate_limit_exceeded", 429, "Too many. Later."),
        ((b"retry-after", b"7"),),
    )


async def test_a_model_that_left_again_before_its_request_went_out_is_asked_for_once_more() -> None:
    double, sent = remote()
    double.use(table())
    waiting = asyncio.create_task(double.ensure_ready("m", 10))
    await turns()
    # All three arrive together: it is ready, it has left.
    double.use(table(HERE))
    double.answered(Ready(1))
    double.use(table())
    await turns()
    assert isinstance(sent[1], EnsureReady) and sent[2] == Taken(1, {})
    double.use(table(HERE))
    double.answered(Ready(2))
    assert (await waiting).targets == (HERE,)


async def test_the_request_is_counted_before_the_server_hears_that_the_model_is_taken() -> None:
    double, sent = remote()

    async def request() -> None:
        ready = await double.ensure_ready("m", 10)
        double.in_flight.begin(ready.targets[0])

    asking = asyncio.create_task(request())
    await turns()
    double.use(table(HERE))
    double.answered(Ready(1))
    await asking
    await turns()
    assert sent[1:] == [Taken(1, {"r0": 1})]


async def test_whoever_leaves_while_it_waits_tells_the_server() -> None:
    double, sent = remote()
    waiting = asyncio.create_task(double.take_request(KEY, 0.0))
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert sent[1:] == [Cancel(1)]
    double.answered(Granted(1))  # too late, and nobody minds


async def test_what_a_process_held_is_free_when_it_is_gone() -> None:
    router = HandMadeRouter(coming=route(HERE))
    asked = (Seen(1), TakePermit(1, "m", 1), TakePermit(2, "m", 1), EnsureReady(3, "m", 5.0))
    worker, sent = process(router, *asked)
    await worker.listen()
    assert [type(message) for message in sent[1:4]] == [Granted, Refused, Ready] and sent[-1] == "closed"
    assert worker.shared.quota.permits.held("m") == 0 and worker.requests_at("r0") == 0 and not worker.serving


async def test_a_replica_is_in_use_from_the_promise_on() -> None:
    worker, _ = process(HandMadeRouter(coming=route(HERE)))
    worker._hear(EnsureReady(1, "m", 5.0))
    assert worker.requests_at("r0") == 0
    await turns()
    assert worker.requests_at("r0") == 1
    worker._hear(Taken(1, {"r0": 1}))
    assert worker.requests_at("r0") == 1
    worker._hear(Taken(2, {}))
    assert worker.requests_at("r0") == 0


async def test_two_processes_spend_one_keys_requests() -> None:
    router = HandMadeRouter()
    first, told_first = process(router)
    second = WorkerProcess(cast(Any, None), cast(Any, link := Recorded()), first.shared)
    first._hear(TakeRequest(1, KEY, 600_000.0))
    second._hear(TakeRequest(1, KEY, 600_001.0))
    assert told_first == [Granted(1)]
    assert isinstance(link.sent[0], Refused) and link.sent[0].status == 429


@pytest.mark.process
async def test_a_process_that_hangs_is_killed_and_one_that_answers_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "HUNG_SECONDS", 0.2)
    worker, sent = process(HandMadeRouter())
    with subprocess.Popen(["sleep", "60"]) as worker.process:
        worker._hear(Seen(1))
        asking = asyncio.create_task(pool._report_or_die(worker))
        await turns()
        worker._hear(Reported(sent[-1].number, {}, {}, {}, Counted([], [], {})))
        await asking
        assert worker.process.poll() is None
        await pool._report_or_die(worker)
        assert worker.process.wait(10) == -signal.SIGKILL
