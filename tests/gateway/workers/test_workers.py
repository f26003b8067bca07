"""Messages between the server and its gateway processes, without the processes."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.gateway.harness import HandMadeRouter, route
from tests.support.polling import until_async
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.gateway.crash_memory import CrashMemory
from xinference.gateway.rate_limits import LocalQuota
from xinference.gateway.workers import crash_reports, pool
from xinference.gateway.workers.ipc import (
    FROM_SERVER,
    FROM_WORKER,
    Cancel,
    Configuration,
    CrashNote,
    EnsureReady,
    Grant,
    LeftNote,
    Ready,
    ReadyAck,
    Rejection,
    Report,
    ReportRequest,
    Serve,
    Stop,
    Suspects,
    TableAck,
    TableUpdate,
    TakeKeyPermit,
    TakePermit,
    TakeRequest,
    packed,
)
from xinference.gateway.workers.proxies import ServerProxy
from xinference.gateway.workers.worker_handle import SharedState, WorkerHandle
from xinference.keys.key import Key
from xinference.keys.secret import digest
from xinference.keys.table import NoKeys
from xinference.protocol.errors import Refusal
from xinference.routing.table import Crash, Route, Target

HERE = Target("r0", "http://127.0.0.1:1", "engine's key")
KEY = Key("k1", "k", digest(b"secret"), frozenset({"use"}), models=frozenset({"m"}), requests_per_minute=1)


class RecordingChannel:
    """A channel that stores what is sent; the messages that come are a test's."""

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


def remote() -> tuple[ServerProxy, list[Any]]:
    channel = RecordingChannel()
    return ServerProxy(cast(Any, channel)), channel.sent


def table(*targets: Target, **changes: Any) -> TableUpdate:
    return TableUpdate(1, {"m": route(*targets, **changes)}, b"[]", [KEY], True)


def process(router: HandMadeRouter, *coming: Any) -> tuple[WorkerHandle, list[Any]]:
    channel = RecordingChannel(*coming)
    shared = SharedState(router, LocalQuota(), lambda report: None, lambda records: None, lambda: None, CrashMemory())
    return WorkerHandle(cast(subprocess.Popen[bytes], None), cast(Any, channel), shared), channel.sent


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_table_arrives_as_it_was() -> None:
    problem = Problem(Code.ENGINE_DIED, "It died.", stage="start", hint="Look.", log_tail=["a", "b"])
    sent = table(HERE, problem=problem, adapters=("lora",), request_limits=3)
    found = FROM_SERVER.decode(packed(sent)[4:])
    assert isinstance(found, TableUpdate) and found.keys == [KEY]
    assert found.routes["m"].problem is not None and found.routes["m"].problem.to_dict() == problem.to_dict()
    assert (found.routes["m"].targets, found.routes["m"].paths) == ((HERE,), sent.routes["m"].paths)


def test_each_field_of_a_route_arrives_as_it_was() -> None:
    problem = Problem(Code.ENGINE_DIED, "It died.", stage="start", hint="Look.", log_tail=["a", "b"])
    sent = Route(
        uid="mine",
        engine="vLLM",
        model_type="rerank",
        model_name="ranker",
        context_length=512,
        created=1700000000.25,
        targets=(HERE, replace(HERE, replica_id="r1")),
        stage="start",
        problem=problem,
        recovering=True,
        unloaded=True,
        on_demand=True,
        retry_after=9,
        paths=frozenset({"/rerank", "/v1/rerank"}),
        aliases=("gpt-4o",),
        adapters=("a", "b"),
        parent="base",
        request_limits=3,
        max_output_tokens=9,
        max_request_seconds=1.5,
        slots=4,
        stop=("USER:", "###"),
        stop_token_ids=(7, 9),
        tools_refused="The model names no form of calls.",
        crashes=(Crash("r7", Code.ENGINE_HUNG),),
        state_bytes=1 << 28,
    )
    plain = {field.name for field in fields(Route) if getattr(sent, field.name) in (field.default, None)}
    assert not plain, f"set these to values of their own: {plain}"
    found = FROM_SERVER.decode(packed(TableUpdate(1, {"mine": sent}, b"[]", [KEY], True))[4:])
    assert isinstance(found, TableUpdate)
    arrived = found.routes["mine"]
    assert arrived.problem is not None and arrived.problem.to_dict() == problem.to_dict()
    assert replace(arrived, problem=problem) == sent


def test_a_refusal_arrives_with_its_headers() -> None:
    refusal = Refusal(Code.RATE_LIMIT_EXCEEDED, "Too many.", hint="Later.", retry_after=7)
    found = FROM_SERVER.decode(packed(Rejection.of(1, refusal))[4:])
    assert isinstance(found, Rejection)
    again = found.refusal
    assert (again.code, again.status, str(again), again.headers) == (
        *("rate_limit_exceeded", 429, "Too many. Later. Retry in 7 seconds."),
        ((b"retry-after", b"7"),),
    )


async def test_a_model_that_left_again_before_its_request_went_out_is_asked_for_once_more() -> None:
    double, sent = remote()
    double.use(table())
    waiting = asyncio.create_task(double.ensure_ready("m", 10))
    await turns()
    # All three arrive together: it is ready, it has left.
    double.use(table(HERE))
    double.resolve(Ready(1))
    double.use(table())
    await turns()
    assert isinstance(sent[1], EnsureReady) and sent[2] == ReadyAck(1, {})
    double.use(table(HERE))
    double.resolve(Ready(2))
    assert (await waiting).targets == (HERE,)


async def test_the_request_is_counted_before_the_server_hears_that_the_model_is_taken() -> None:
    double, sent = remote()

    async def request() -> None:
        ready = await double.ensure_ready("m", 10)
        double.balancer.begin(ready.targets[0])

    asking = asyncio.create_task(request())
    await turns()
    double.use(table(HERE))
    double.resolve(Ready(1))
    await asking
    await turns()
    assert sent[1:] == [ReadyAck(1, {"r0": 1})]


async def test_whoever_leaves_while_it_waits_tells_the_server() -> None:
    double, sent = remote()
    waiting = asyncio.create_task(double.take_request(KEY, 0.0))
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert sent[1:] == [Cancel(1)]
    double.resolve(Grant(1))  # too late, and nobody minds


async def test_what_a_process_held_is_free_when_it_is_gone() -> None:
    router = HandMadeRouter(coming=route(HERE))
    permits = (TakePermit(1, "m", 1), TakePermit(2, "m", 1), TakeKeyPermit(4, KEY, 1), TakeKeyPermit(5, KEY, 1))
    worker, sent = process(router, TableAck(1), *permits, EnsureReady(3, "m", 5.0))
    await worker.handle_messages()
    assert [type(message) for message in sent[1:6]] == [Grant, Rejection, Grant, Rejection, Ready]
    assert sent[-1] == "closed"
    worker.shared.quota.permits.take_of_key(KEY, 1)
    assert worker.shared.quota.permits.held("m") == 0 and worker.requests_at("r0") == 0 and not worker.serving


async def test_a_replica_is_in_use_from_the_promise_on() -> None:
    worker, _ = process(HandMadeRouter(coming=route(HERE)))
    worker._handle(EnsureReady(1, "m", 5.0))
    assert worker.requests_at("r0") == 0
    await turns()
    assert worker.requests_at("r0") == 1
    worker._handle(ReadyAck(1, {"r0": 1}))
    assert worker.requests_at("r0") == 1
    worker._handle(ReadyAck(2, {}))
    assert worker.requests_at("r0") == 0


async def test_a_replica_is_in_use_from_the_turn_on_in_which_it_is_ready() -> None:
    found: list[int] = []

    class Router(HandMadeRouter):
        async def ensure_ready(self, uid: str, deadline: float) -> Route:
            await asyncio.sleep(0)
            # The first that runs after this turn: the replica must not be found idle.
            asyncio.get_running_loop().call_soon(lambda: found.append(worker.requests_at("r0")))
            return await super().ensure_ready(uid, deadline)

    worker, _ = process(Router(coming=route(HERE)))
    worker._handle(EnsureReady(1, "m", 5.0))
    await turns()
    assert found == [1]


async def test_a_defect_of_the_server_ends_the_wait_for_a_model() -> None:
    class Defective(HandMadeRouter):
        async def ensure_ready(self, uid: str, deadline: float) -> Route:
            raise RuntimeError("no such state")

    worker, sent = process(Defective(), EnsureReady(1, "m", 10.0))
    await worker.handle_messages()
    rejection = next(message for message in sent if isinstance(message, Rejection))
    assert (rejection.number, rejection.status, rejection.code) == (1, 500, "internal_error")


async def test_two_processes_spend_one_keys_requests() -> None:
    router = HandMadeRouter()
    first, told_first = process(router)
    second = WorkerHandle(cast(Any, None), cast(Any, channel := RecordingChannel()), first.shared)
    first._handle(TakeRequest(1, KEY, 600_000.0))
    second._handle(TakeRequest(1, KEY, 600_001.0))
    assert told_first == [Grant(1)]
    assert isinstance(channel.sent[0], Rejection) and channel.sent[0].status == 429
    double, sent = remote()
    double.give_back_request(KEY, 600_000.0)
    first._handle(FROM_WORKER.decode(packed(sent[0])[4:]))
    second._handle(TakeRequest(2, KEY, 600_001.0))
    assert channel.sent[1] == Grant(2)


@pytest.mark.process
async def test_a_process_that_hangs_is_killed_and_one_that_answers_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "HUNG_SECONDS", 0.2)
    worker, sent = process(HandMadeRouter())
    with subprocess.Popen(["sleep", "60"]) as worker.process:
        worker._handle(TableAck(1))
        asking = asyncio.create_task(pool._report_or_kill(worker))
        await turns()
        worker._handle(Report(sent[-1].number, {}, {}, {}, {}, []))
        await asking
        assert worker.process.poll() is None
        await pool._report_or_kill(worker)
        assert worker.process.wait(10) == -signal.SIGKILL


class FakeProcess:
    """A process that ends when it is told to."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended = threading.Event()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return 0 if self.ended.is_set() else None

    def wait(self) -> int:
        self.ended.wait(10)
        return 0

    kill = terminate = lambda self: self.ended.set()


class ProcessChannel:
    """The channel to a process whose messages a test sends; it ends with `Stop`."""

    def __init__(self, process: FakeProcess) -> None:
        self.process = process
        self.sent: list[Any] = []
        self.coming: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, message: Any) -> None:
        self.sent.append(message)
        if isinstance(message, ReportRequest):
            self.coming.put_nowait(Report(message.number, {}, {}, {}, {}, []))
        if isinstance(message, Stop):
            self.coming.put_nowait(None)

    async def messages(self) -> Any:
        while (message := await self.coming.get()) is not None:
            yield message

    def close(self) -> None:
        self.process.ended.set()


async def test_the_pool_has_started_when_each_process_has_the_table_and_has_ended_when_each_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channels: list[ProcessChannel] = []

    async def start(_listener: socket.socket, shared: SharedState) -> WorkerHandle:
        channels.append(ProcessChannel(FakeProcess(len(channels))))
        return WorkerHandle(cast(Any, channels[-1].process), cast(Any, channels[-1]), shared)

    monkeypatch.setattr(WorkerHandle, "start", start)
    settings = Settings(port=0, gateway_workers=2)
    router = HandMadeRouter()
    workers = pool.WorkerPool(settings, router, cast(Any, NoKeys()), Path("nowhere"))
    with socket.socket() as listener:
        starting = asyncio.create_task(workers.start(listener, router))
        await turns()
        channels[0].coming.put_nowait(TableAck(0))
        await turns()
        assert not starting.done()
        channels[1].coming.put_nowait(TableAck(0))
        await starting
        await workers.close()
        assert listener.fileno() == -1
    assert [[type(message) for message in channel.sent] for channel in channels] == [
        [Configuration, TableUpdate, Serve, ReportRequest, Stop]
    ] * 2


async def test_a_pool_that_never_started_can_be_closed() -> None:
    workers = pool.WorkerPool(Settings(port=0), HandMadeRouter(), cast(Any, NoKeys()), Path("nowhere"))
    await workers.close()


KEY_A, KEY_B = ("m", 1.5, b"a" * 16), ("m", 1.5, b"b" * 16)


def test_reports_of_crashes_and_suspects_arrive_as_they_were() -> None:
    for note in (CrashNote("r0", KEY_A, 3), LeftNote("r0", KEY_B)):
        assert FROM_WORKER.decode(packed(note)[4:]) == note
    suspects = Suspects([(KEY_A, 2), (KEY_B, 1)])
    assert FROM_SERVER.decode(packed(suspects)[4:]) == suspects


async def test_a_process_reports_crashes_and_judges_none() -> None:
    double, sent = remote()
    double.crashes.add(route(HERE), HERE, "/v1/completions", b"{}", in_flight=2)
    double.crashes.leave(route(HERE), HERE, "/v1/completions", b"{}")
    assert [type(message) for message in sent] == [CrashNote, LeftNote] and not double.crashes.suspects
    assert (sent[0].replica_id, sent[0].in_flight) == ("r0", 2)


async def test_a_crash_that_two_processes_report_is_judged_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash_reports, "GATHER_SECONDS", 0.0)
    announced: list[Any] = []
    shared = crash_reports.SharedCrashes(announced.append)
    # Each process sees its own request alone at the engine.
    shared.note_crash("r0", KEY_A, 1)
    shared.note_crash("r0", KEY_B, 1)
    shared.note_crash("r1", KEY_A, 1)
    await turns()
    assert announced == [[(KEY_A, 1), (KEY_B, 1)], [(KEY_A, 2)]]
    assert shared.memory.crashes == [(KEY_B, 1), (KEY_A, 3)]


async def test_suspects_reach_each_process_and_one_that_starts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash_reports, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(pool, "SHORT_LIFE_SECONDS", 0.0)
    channels: list[ProcessChannel] = []

    async def start(_listener: socket.socket, shared: SharedState) -> WorkerHandle:
        channels.append(ProcessChannel(FakeProcess(len(channels))))
        return WorkerHandle(cast(Any, channels[-1].process), cast(Any, channels[-1]), shared)

    monkeypatch.setattr(WorkerHandle, "start", start)
    router = HandMadeRouter()
    workers = pool.WorkerPool(Settings(port=0, gateway_workers=2), router, cast(Any, NoKeys()), Path("nowhere"))
    with socket.socket() as listener:
        starting = asyncio.create_task(workers.start(listener, router))
        await turns()
        for channel in channels:
            channel.coming.put_nowait(TableAck(0))
        await starting
        channels[0].coming.put_nowait(CrashNote("r0", KEY_A, 1))
        await turns()
        assert [channel.sent[-1] for channel in channels] == [packed(Suspects([(KEY_A, 2)]))] * 2
        channels[1].process.ended.set()
        channels[1].coming.put_nowait(None)
        await until_async("it is replaced", lambda: len(channels) == 3)
        await turns()
        assert channels[2].sent[-1] == Suspects([(KEY_A, 2)])
        channels[2].coming.put_nowait(TableAck(0))
        await turns()
        await workers.close()


async def test_the_last_byte_of_an_engine_is_the_newest_that_a_process_has_seen() -> None:
    workers = pool.WorkerPool(Settings(port=0), HandMadeRouter(), cast(Any, NoKeys()), Path("nowhere"))
    first, second = (process(HandMadeRouter())[0] for _ in range(2))
    workers._workers = [first, second]
    assert await workers.last_byte("http://127.0.0.1:1") == 0.0
    for worker, at in ((first, 5.0), (second, 7.0)):
        worker._handle(Report(1, {}, {}, {"http://127.0.0.1:1": at}, {}, []))
    assert await workers.last_byte("http://127.0.0.1:1") == 7.0
