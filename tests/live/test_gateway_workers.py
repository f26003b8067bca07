"""A server whose gateway is two processes on one port: what holds for one holds for both together."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import psutil
import pytest

from tests.support.home import UID, Home, send_signal, sse_events
from tests.support.polling import until

WORKER = "xinference.gateway.workers.worker"


def workers(server: int) -> list[int]:
    """The gateway processes of a server that live."""
    return sorted(child.pid for child in psutil.Process(server).children() if _is_worker(child))


def _is_worker(process: psutil.Process) -> bool:
    try:
        return WORKER in process.cmdline()
    except psutil.Error:  # it has ended, and may not have been reaped yet
        return False


@dataclass
class Two:
    """A home whose server has two gateway processes, and for each a client that talks to that one."""

    home: Home
    server: subprocess.Popen[bytes]
    clients: ExitStack

    def each(self, **options: Any) -> list[httpx2.Client]:
        """A client for each process; the others are stopped while it connects."""
        until("two gateway processes", lambda: len(self.pids) == 2)
        pids = self.pids
        return [self.one(pid, [other for other in pids if other != pid], **options) for pid in pids]

    def one(self, pid: int, others: list[int], **options: Any) -> httpx2.Client:
        """A client of process `pid`, which accepted its connection while the others were stopped.

        They are stopped for a second at a time. A new process may still be starting, and one that is stopped until that
        one answers is killed as hung after 10 s, with all requests that it has.
        """
        client = self.clients.enter_context(httpx2.Client(base_url=self.home.url, timeout=60, **options))

        def answers() -> bool:
            with ExitStack() as stopped:
                for other in others:
                    stopped.enter_context(paused(other))
                try:
                    return client.get("/health", timeout=1).status_code == 200
                except httpx2.TransportError:
                    return False

        until(f"gateway process {pid} answers", answers)
        return client

    @property
    def pids(self) -> list[int]:
        return workers(self.server.pid)


@contextmanager
def started(make_home: Callable[..., Home]) -> Iterator[Two]:
    home = make_home(XINFERENCE_GATEWAY_WORKERS="2")
    with ExitStack() as clients:
        running = Two(home, home.serve(), clients)
        yield running
    send_signal(running.server.pid, signal.SIGINT)
    running.server.wait(30)
    until("nothing is left", home.nothing_left)


@pytest.fixture
def two(make_home: Callable[..., Home]) -> Iterator[Two]:
    """A server of the test's own."""
    with started(make_home) as running:
        yield running


@pytest.fixture(scope="module")
def module_server(make_home: Callable[..., Home]) -> Iterator[Two]:
    with started(make_home) as running:
        yield running


@pytest.fixture
def shared(module_server: Two) -> Iterator[Two]:
    """The server of the tests that end no process, count nothing and leave no key; their models end with each."""
    with ExitStack() as clients:
        yield Two(module_server.home, module_server.server, clients)
    for model in httpx2.get(f"{module_server.home.url}/v1/models/instances", timeout=30).json():
        ended = httpx2.delete(f"{module_server.home.url}/v1/models/{model['model_uid']}", timeout=60)
        assert ended.status_code == 200, ended.text


def ask(client: httpx2.Client, **fields: Any) -> httpx2.Response:
    body = {"model": "m", "prompt": "Once upon", "max_tokens": 4, "ignore_eos": True} | fields
    return client.post("/v1/completions", json=body)


def launched(two: Two, model: dict[str, Any], **fields: Any) -> list[httpx2.Client]:
    """Clients of each process, once the model runs."""
    answer = two.home.launch(**model, model_uid="m", **fields)
    assert answer.status_code == 200, answer.text
    return two.each()


#: A model that computes for seconds what `begun` asks for. The tiny one ends 1900 tokens in 0.6 s: on a machine with
#: other work, that was before the test had stopped its engine.
SLOW = {"model_name": UID, "quantization": "Q4_1", "n_ctx": 1024}


def begun(client: httpx2.Client, stack: ExitStack, **fields: Any) -> Iterator[str]:
    """A stream that has begun, and that goes on for seconds; what follows its first line."""
    body = {"model": "m", "prompt": "Once", "max_tokens": 900, "ignore_eos": True, "stream": True} | fields
    answer = stack.enter_context(client.stream("POST", "/v1/completions", json=body))
    assert answer.status_code == 200
    lines = answer.iter_lines()
    next(lines)
    return lines


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile: what it has begun goes on afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until(f"process {pid} is stopped", lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_each_process_answers_manages_and_counts_for_both(two: Two, tiny: dict[str, Any]) -> None:
    clients = launched(two, tiny)
    for client in clients:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["m"]
        assert client.get("/v1/models/m").json()["id"] == "m"
        said = sse_events(ask(client, stream=True).text)
        assert said[-1] == "[DONE]" and len(said) > 2
    assert client.get("/nowhere?a=b").status_code == 404
    for client in clients:
        counted = [
            line for line in client.get("/metrics").text.splitlines() if line.startswith("xinference_requests_t")
        ]
        assert counted == ['xinference_requests_total{model="m",path="/v1/completions",status="200"} 2.0']
    assert clients[1].delete("/v1/models/m").status_code == 200
    assert [ask(client).status_code for client in clients] == [404, 404]


def test_each_process_answers_probes_without_a_key_and_tokens_with_one(two: Two, tiny: dict[str, Any]) -> None:
    clients = launched(two, tiny)
    made = clients[0].post("/v1/keys", json={"name": "one", "scopes": ["use", "manage"]}).json()["key"]
    for client in clients:
        for path in ("/healthz", "/readyz", "/ping", "/version"):
            assert client.get(path).status_code == 200, path
        assert client.get("/v1/autostart/models").status_code == 401
        client.headers["authorization"] = f"Bearer {made}"
        tokens = client.post("/v1/tokenize", json={"model": "m", "prompt": "Once upon"}).json()
        assert tokens["count"] == len(tokens["tokens"]) and tokens["max_model_len"] == 256
        text = client.post("/v1/detokenize", json={"model": "m", "tokens": tokens["tokens"]}).json()
        assert "Once upon" in text["content"]
        assert client.get("/v1/autostart/models/summary").json()["models"] == [{"enabled": True, "model_uid": "m"}]
        ranked = client.post("/v1/score", json={"model": "m", "text_1": "a", "text_2": "b"})
        assert (ranked.status_code, ranked.json()["error"]["code"]) == (400, "unsupported_path")
    counted = clients[1].get("/metrics").text
    assert 'xinference_requests_total{model="m",path="/v1/tokenize",status="200"} 2.0' in counted


def test_a_key_that_is_made_or_revoked_counts_for_both_at_once(shared: Two, tiny: dict[str, Any]) -> None:
    clients = launched(shared, tiny)
    for n in range(5):
        made = clients[n % 2].post("/v1/keys", json={"name": "k", "scopes": ["use", "manage"]}).json()
        headers = {"authorization": f"Bearer {made['key']}"}
        assert [client.get("/v1/models").status_code for client in clients] == [401, 401]
        assert [client.get("/v1/models", headers=headers).status_code for client in clients] == [200, 200]
        listed = clients[0].get("/v1/keys", headers=headers).json()
        assert [key["last_used"] is not None for key in listed] == [True]
        assert clients[n % 2].delete("/v1/keys", headers=headers).status_code == 200
        assert [client.get("/v1/models").status_code for client in clients] == [200, 200]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models/m", "/metrics"])
def test_a_head_beyond_the_limit_is_refused_and_one_within_it_reaches_the_server(shared: Two, path: str) -> None:
    address = ("127.0.0.1", int(shared.home.url.rpartition(":")[2]))
    start = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
    for size, statuses in ((60_000, (b"200", b"404", b"405")), (1_000_000, (b"431",))):
        with socket.create_connection(address, 30) as client:
            client.sendall(start + b"X: " + b"a" * size + b"\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.split(b" ", 2)[1] in statuses


def test_limits_hold_for_both_together(two: Two) -> None:
    clients = launched(two, SLOW | {"n_parallel": 1}, request_limits=1)
    engine = two.home.engine_pid("m")
    with ExitStack() as streams:
        lines = begun(clients[0], streams)  # kept: httpx2 closes an answer that nobody holds
        with paused(engine):
            assert [ask(client).status_code for client in two.each()] == [429, 429]
        assert next(lines) == ""
    until("the permit is given back", lambda: ask(clients[1]).status_code == 200)
    made = clients[0].post("/v1/keys", json={"scopes": ["use"], "requests_per_minute": 3}).json()
    both = two.each(headers={"authorization": f"Bearer {made['key']}"})
    statuses = [ask(both[n % 2]).status_code for n in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_a_request_is_aborted_wherever_it_is(shared: Two) -> None:
    clients = launched(shared, SLOW | {"n_parallel": 1})
    engine = shared.home.engine_pid("m")
    for n in (0, 1):
        with ExitStack() as streams:
            lines = begun(clients[n], streams, request_id="mine")
            with paused(engine):
                done = clients[1 - n].post("/v1/models/m/requests/mine/abort")
                assert done.json() == {"msg": "DONE"}
                assert any("request_aborted" in line for line in lines)
    assert clients[0].post("/v1/models/m/requests/mine/abort").json() == {"msg": "NOT_FOUND"}


def test_a_killed_process_is_replaced_and_the_other_goes_on(two: Two) -> None:
    clients = launched(two, SLOW | {"n_parallel": 2}, request_limits=2)
    before, engine = two.pids, two.home.engine_pid("m")
    with ExitStack() as streams:
        lost, kept = (begun(client, streams, max_tokens=300) for client in clients)
        with paused(engine):
            os.kill(before[0], signal.SIGKILL)
            with pytest.raises(httpx2.TransportError):
                list(lost)
            until("another process", lambda: len(two.pids) == 2 and before[0] not in two.pids)
            # The permit of the request that went with it is there again, and the other one is not.
            again = two.each()
            with ThreadPoolExecutor(1) as pool:
                one = pool.submit(ask, again[0])
                flying = re.compile(r'^xinference_requests_in_flight{model="m",replica="\w+"} 2\.0$', re.MULTILINE)
                until("two requests at once", lambda: flying.search(again[1].get("/metrics").text))
                assert ask(again[1]).status_code == 429
                os.kill(engine, signal.SIGCONT)
                assert one.result().status_code == 200
        assert list(kept)[-2:] == ["data: [DONE]", ""]


def test_nothing_of_a_killed_server_is_left_on_its_port(two: Two) -> None:
    pids = two.pids
    two.server.kill()
    two.server.wait(10)
    until("no gateway process is left", lambda: not any(map(psutil.pid_exists, pids)), 10)
    two.server = two.home.serve()
    assert two.each()[0].get("/v1/models").status_code == 200


def test_a_server_that_is_told_to_end_sends_what_it_has_begun(two: Two) -> None:
    clients = launched(two, SLOW | {"n_parallel": 2})
    with ExitStack() as streams:
        lines = [begun(client, streams, max_tokens=12) for client in clients]
        with paused(two.home.engine_pid("m")):
            two.server.send_signal(signal.SIGINT)
            until("nobody is let in", lambda: not two.home.answers())
        assert [list(rest)[-2:] for rest in lines] == [["data: [DONE]", ""]] * 2
    assert two.server.wait(30) == 0


def test_both_wait_for_one_load_and_an_answer_of_either_keeps_the_model(shared: Two, tiny: dict[str, Any]) -> None:
    clients = launched(shared, tiny, on_demand=True, ttl=0.2)

    def stages() -> list[str]:
        events = clients[0].get("/v1/models/m/events").json()
        return [event["stage"] for event in events if event["stage"] in ("start", "unload")]

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda n: ask(clients[n % 2]).status_code, range(8)))
    assert statuses == [200] * 8 and stages().count("start") == 1
    for n, client in enumerate(clients, 2):
        until("it has left", lambda: stages()[-1] == "unload")
        said = sse_events(ask(client, max_tokens=240, stream=True).text)
        assert said[-1] == "[DONE]" and not any("error" in event for event in said[:-1])
        assert stages().count("start") == n
