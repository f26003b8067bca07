"""Sends hostile requests to a server, and watches what happens to it, to its engines and to other clients meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.hostile.generator import Generator, HostileRequest
from tests.support.home import Home
from xinference.process.memory import private_bytes

#: Seconds after which a hostile client leaves.
PATIENCE = 60.0
PROBE_SECONDS = 1.0
#: Statuses that a client may get for a hostile request. A 500 is one only if an engine has answered it.
EXPECTED = frozenset({200, 400, 403, 404, 408, 413, 415, 422, 429, 431, 499, 500, 501, 502, 503})
OURS = "internal_error"
#: Bytes of an answer that are kept.
KEPT = 400


@dataclass(frozen=True)
class Outcome:
    """What a client got: a status of 0 means that it left, -1 that the connection broke."""

    request: HostileRequest
    status: int
    answer: bytes
    seconds: float


@dataclass
class Neighbour:
    """Another client, which sends an ordinary request to one model each second."""

    model: str
    times: list[tuple[float, float, int]] = field(default_factory=list)
    """Start, seconds and status of each request."""


@dataclass
class Observations:
    """What was seen during an attack."""

    outcomes: list[Outcome] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    pids: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """The processes of each model's engine, with the time at which each was first seen."""
    down: dict[str, float] = field(default_factory=dict)
    """The longest time in which each model was not ready, in seconds."""
    engine_bytes: dict[str, int] = field(default_factory=dict)
    """The most private memory that each model's engine was seen with."""
    server_bytes: int = 0

    def statuses(self) -> dict[int, int]:
        return dict(sorted(Counter(outcome.status for outcome in self.outcomes).items()))


class Attack:
    """One run against one server."""

    def __init__(self, home: Home, server_pid: int, key: str, owner_key: str, neighbours: Sequence[str]) -> None:
        self._home = home
        self._server = psutil.Process(server_pid)
        self._key = key
        self._owner_key = owner_key
        self._ended = threading.Event()
        self.seen = Observations(neighbours=[Neighbour(model) for model in neighbours])

    def run(self, generator: Generator, numbers: range, clients: int) -> Observations:
        """Send the requests of these numbers, `clients` at a time, while the others go on with theirs."""
        threads = [threading.Thread(target=self._watch), *(self._probing(each) for each in self.seen.neighbours)]
        for thread in threads:
            thread.start()
        try:
            with ThreadPoolExecutor(clients) as pool:
                for outcome in pool.map(lambda number: self.send(generator.request(number)), numbers):
                    self.seen.outcomes.append(outcome)
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()
        return self.seen

    def send(self, request: HostileRequest) -> Outcome:
        """Send one request and read its answer."""
        began = time.monotonic()
        headers = {"authorization": f"Bearer {self._key}", **request.headers}
        try:
            with self._connection(PATIENCE) as connection:
                connection.request("POST", request.path, request.body, headers)
                answer = connection.getresponse()
                return Outcome(request, answer.status, answer.read()[:KEPT], time.monotonic() - began)
        except TimeoutError:
            return Outcome(request, 0, b"", time.monotonic() - began)
        except (OSError, http.client.HTTPException) as error:
            return Outcome(request, -1, repr(error).encode(), time.monotonic() - began)

    @contextlib.contextmanager
    def _connection(self, seconds: float) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self._home.port, timeout=seconds)
        try:
            yield connection
        finally:
            connection.close()

    # -- other clients ------------------------------------------------------------------------------------------

    def _probing(self, neighbour: Neighbour) -> threading.Thread:
        return threading.Thread(target=self._probe, args=(neighbour,))

    def _probe(self, neighbour: Neighbour) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            status = self.ask(neighbour.model)
            neighbour.times.append((began, time.monotonic() - began, status))
            self._ended.wait(PROBE_SECONDS)

    def ask(self, model: str) -> int:
        """Send an ordinary request; returns its status, -1 if the connection failed."""
        body = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 3}
        headers = {"authorization": f"Bearer {self._owner_key}", "content-type": "application/json"}
        try:
            with self._connection(120) as connection:
                connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
                answer = connection.getresponse()
                answer.read()
                return answer.status
        except (OSError, http.client.HTTPException):
            return -1

    # -- engines and memory -------------------------------------------------------------------------------------

    def instances(self) -> list[dict[str, Any]]:
        with self._connection(60) as connection:
            connection.request("GET", "/v1/models/instances", headers={"authorization": f"Bearer {self._owner_key}"})
            answer = connection.getresponse()
            entries: list[dict[str, Any]] = json.loads(answer.read())
            return entries

    def _watch(self) -> None:
        lost: dict[str, float] = {}
        while not self._ended.is_set():
            now = time.monotonic()
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                for entry in self.instances():
                    self._look_at(entry, now, lost)
            with contextlib.suppress(psutil.Error):
                self.seen.server_bytes = max(self.seen.server_bytes, self._server.memory_info().rss)
            self._ended.wait(0.5)

    def _look_at(self, entry: dict[str, Any], now: float, lost: dict[str, float]) -> None:
        uid, replica = entry["model_uid"], (entry["replicas"] or [{}])[0]
        if entry["status"] != "READY" or replica.get("status") != "READY":
            self.seen.down[uid] = max(self.seen.down.get(uid, 0.0), now - lost.setdefault(uid, now))
            return
        lost.pop(uid, None)
        pid = replica["engine_pid"]
        pids = self.seen.pids.setdefault(uid, [])
        if not pids or pids[-1][1] != pid:
            pids.append((now, pid))
        family = [pid]
        with contextlib.suppress(psutil.Error):
            family += [child.pid for child in psutil.Process(pid).children(recursive=True)]
        self.seen.engine_bytes[uid] = max(self.seen.engine_bytes.get(uid, 0), private_bytes(family))
