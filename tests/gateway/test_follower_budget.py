"""What followers of the server may cost: 8 of `/v1/watch` and 2 of a model's log, in calls of functions a second.

The whole way is counted: the sources, the events, the routes and the HTTP server, without sockets. The loop has a clock
of its own, which goes on when nothing is left to do, so that the time passes at once and the count is exact.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import msgspec
from uvicorn.server import ServerState

from tests.api.application import application
from tests.gateway.test_cpu_budget import CALLS_RISE, CHUNK_CALLS
from tests.gateway.wire import Wire
from tests.records.samples import record
from xinference.api.request_log import RequestLog
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.control.stats import Sampler
from xinference.control.usage import Usage
from xinference.deployments.snapshot import Status
from xinference.error_codes import Code
from xinference.errors import not_found
from xinference.gateway.app import Gateway
from xinference.gateway.http.server import http_server
from xinference.keys.keyring import Keyring
from xinference.records.hub import RecordHub
from xinference.routing.active_requests import ActiveRequest
from xinference.store.database import Store

WATCHERS, LOG_FOLLOWERS = 8, 2
MODELS, REQUESTS = 4, 16
SECONDS = 20
#: Calls a second of all these followers, as counted; a third are those of the sources, which are read once for all.
FOLLOWER_CALLS = 2810
#: Of it, calls of one more follower of `/v1/watch`, and of one of a log that grows by a line each second.
WATCHER_CALLS, LOG_FOLLOWER_CALLS = 210, 465
#: Calls of a reader of `/v1/stats` between two samples: FastAPI's, for the route and its parameters.
READER_CALLS = 1560
POLL = b"GET /v1/stats HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n"
#: Chunks a second of the streams of `benchmarks/watchers.py`: less than a fifth of what one core relays.
CHUNKS_A_SECOND = 16 * 500
#: The followers may cost this share of them.
SHARE = 0.05


class SelectorWithClock(selectors.DefaultSelector):
    """Does not wait: its clock goes on by the time for which the loop would wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found and timeout is not None:
            self.now += max(0.0, timeout)
        return found


class ClockedLoop(asyncio.SelectorEventLoop):
    """A loop whose time is that of its selector."""

    def __init__(self) -> None:
        self.clock = SelectorWithClock()
        super().__init__(self.clock)
        self.set_default_executor(Inline())

    def time(self) -> float:
        return self.clock.now


class Inline(ThreadPoolExecutor):
    """Runs work at once in the thread of the loop, so that it is counted."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*arguments, **named))
        return done


class Running:
    """Streams, each with one more event at each look."""

    def __init__(self) -> None:
        self._looks = 0

    async def active(self) -> list[ActiveRequest]:
        self._looks += 1
        first = ActiveRequest("p-0", 0.0, "", "m0", "r0", "/v1/chat/completions", True, 0.0, 0.5, 0, "")
        return [
            msgspec.structs.replace(first, request_id=f"p-{n}", seconds=float(self._looks), output_tokens=self._looks)
            for n in range(REQUESTS)
        ]

    async def abort_request(self, request_id: str) -> bool:
        return False

    async def collect(self) -> None:
        """There is nothing to wait for."""


def launched(uid: str, log: Path) -> Any:
    """A model that answers."""
    snapshot = SimpleNamespace(replicas=(), sized=None)
    instance = {"model_uid": uid, "status": "READY", "replicas": [{"replica_id": 0, "status": "READY"}]}
    return SimpleNamespace(
        uid=uid,
        snapshot=snapshot,
        instance=instance,
        problem=None,
        ready=True,
        status=Status.READY,
        replica_logs={f"{uid}-rep0": log},
    )


@contextmanager
def counting() -> Iterator[list[int]]:
    """Count the calls in the block."""
    calls = [0]

    def note(_frame: FrameType, event: str, _of: object) -> None:
        calls[0] += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def calls_a_second(home: Path, watchers: int, log_followers: int, readers: int) -> float:
    """The calls of a second in which so many follow, with the load of the sources, and so many read the rates once."""
    loop = asyncio.get_running_loop()
    home.mkdir()
    settings, log = Settings(home=home, offline=True), home / "m0.log"
    log.write_text("the engine starts\n")
    store = Store(home / "x.db")
    hub, running = RecordHub(), Running()
    requests = RequestLog(hub, Usage(store, hub.totals), running, Sampler(hub.totals, running, dict, loop.time, dict))
    controller, keys = Controller(settings, store), Keyring(store)
    models = {f"m{number}": launched(f"m{number}", log) for number in range(MODELS)}

    def find(name: str) -> Any:
        if name not in models:
            raise not_found(f"There is no model {name}.", code=Code.MODEL_NOT_FOUND)
        return models[name]

    for name, double in (
        ("deployments", lambda: list(models.values())),
        ("deployment", find),
        ("has", lambda deployment: True),
    ):
        setattr(controller, name, double)
    app = application(controller, settings, keys, requests=requests)
    app.state.devices._clock = app.state.watch.changes._now = loop.time
    gateway = Gateway(controller, settings, app, keys, is_owner=lambda scope: True)
    config = http_server(gateway).config
    config.load()
    protocol_class: Any = config.http_protocol_class
    polled: list[bytes] = []
    poll = protocol_class(config, ServerState(), {})
    poll.connection_made(Wire(polled.append))
    poll.data_received(POLL)  # the first request loads what the others find
    received: list[list[bytes]] = []
    paths = ["/v1/watch"] * watchers + ["/v1/models/m0/logs?replica=0&follow=true"] * log_followers
    for path in paths:
        received.append([])
        protocol = protocol_class(config, ServerState(), {})
        protocol.connection_made(Wire(received[-1].append))
        protocol.data_received(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    await asyncio.sleep(5)
    before = [sum(map(len, pieces)) for pieces in received]
    with counting() as calls:
        for _ in range(SECONDS):
            for _ in range(readers):
                poll.data_received(POLL)
                await asyncio.sleep(0.01)
            await asyncio.sleep(1)
            hub.publish(record(request_id=f"e-{loop.time()}"))
            with log.open("a") as file:
                file.write("a request\n")
    assert b"".join(polled).count(b"HTTP/1.1 200 OK") == 1 + readers * SECONDS
    for path, pieces, size in zip(paths, received, before, strict=True):
        new = sum(map(len, pieces)) - size
        assert new > SECONDS * (500 if path == "/v1/watch" else 10), f"{path} has sent {new} bytes"
    controller.stop_notice.give()
    await asyncio.sleep(1)
    await gateway.close()
    await controller.close("stop")
    store.close()
    return calls[0] / SECONDS


def run(home: Path, watchers: int, log_followers: int, readers: int = 0) -> float:
    with asyncio.Runner(loop_factory=ClockedLoop) as runner:
        return runner.run(calls_a_second(home, watchers, log_followers, readers))


def test_followers_make_no_more_calls_than_their_budget(tmp_path: Path) -> None:
    without = run(tmp_path / "without", 0, 0)
    followers = run(tmp_path / "with", WATCHERS, LOG_FOLLOWERS) - without
    assert followers < FOLLOWER_CALLS * CALLS_RISE, f"the followers make {followers:.0f} calls a second"
    assert FOLLOWER_CALLS * CALLS_RISE < SHARE * CHUNKS_A_SECOND * CHUNK_CALLS


def test_one_more_follower_costs_its_own_pieces_only(tmp_path: Path) -> None:
    one = run(tmp_path / "one", 1, 1)
    watcher = run(tmp_path / "watcher", 2, 1) - one
    log_follower = run(tmp_path / "log", 1, 2) - one
    assert watcher < WATCHER_CALLS * CALLS_RISE, f"a follower makes {watcher:.0f} calls a second"
    assert log_follower < LOG_FOLLOWER_CALLS * CALLS_RISE, f"a log's follower makes {log_follower:.0f} calls a second"


def test_one_more_reader_of_the_rates_gets_the_answer_of_the_others(tmp_path: Path) -> None:
    two, four = (run(tmp_path / str(number), 0, 0, number) for number in (2, 4))
    reader = (four - two) / 2
    assert reader < READER_CALLS * CALLS_RISE, f"a reader makes {reader:.0f} calls"
