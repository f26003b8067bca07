"""A server that stops under load tells each client what happens, leaves nothing, and can be started again at once.

``STOPS=200`` makes a longer run of it.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.home import Home, sse_events
from tests.support.polling import until
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "assets" / "tiny-llama2-chat-hf"
STOPS = int(os.environ.get("STOPS", "3"))
NEVER = 3600
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
ANTHROPIC = {"anthropic-version": "2023-06-01"}


def stopped_by_command(home: Home, server: subprocess.Popen[bytes]) -> None:
    done = home.cli("stop")
    assert done.returncode == 0, done.stderr


def stopped_by_sigterm(home: Home, server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGTERM)


def stopped_by_interrupt(home: Home, server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGINT)


WAYS = (stopped_by_command, stopped_by_sigterm, stopped_by_interrupt)


@dataclass
class Load:
    """Clients of every kind, each in a thread of its own; what each was told is in `told`."""

    url: str
    told: dict[str, Future[Any]] = field(default_factory=dict)
    begun: list[threading.Event] = field(default_factory=list)

    def start(self, threads: ThreadPoolExecutor) -> None:
        """Start all clients; returns when each waits for something."""
        clients: dict[str, Callable[[threading.Event], Any]] = {
            **{f"stream {number}": self._stream("/v1/chat/completions") for number in range(4)},
            "anthropic stream": self._stream("/v1/messages"),
            "chat": self._ask("/v1/chat/completions", CHAT | {"model": "late"}),
            "stream without an answer": self._ask("/v1/chat/completions", CHAT | {"model": "late", "stream": True}),
            "anthropic": self._ask("/v1/messages", CHAT | {"model": "late"}),
            "on demand": self._ask("/v1/chat/completions", CHAT | {"model": "demand"}),
            "launch": self._ask("/v1/models", {**WEIGHTS, "model_uid": "loads", "script": {"health_delay": NEVER}}),
            "events": self._follow("/v1/models/loads/events"),
            "log": self._follow("/v1/models/slow/logs"),
        }
        for name, client in clients.items():
            begun = threading.Event()
            self.begun.append(begun)
            self.told[name] = threads.submit(client, begun)
            self._wait_until_begun(name, begun)

    def _wait_until_begun(self, name: str, begun: threading.Event) -> None:
        until(f"{name} has begun", lambda: begun.is_set() or self.told[name].done(), 30)
        assert begun.is_set(), self.told[name].result()

    def _stream(self, path: str) -> Callable[[threading.Event], str]:
        def client(begun: threading.Event) -> str:
            body = CHAT | {"model": "slow", "stream": True}
            with httpx2.stream("POST", self.url + path, json=body, headers=ANTHROPIC, timeout=60) as answer:
                assert answer.status_code == 200, answer.read()
                received = ""
                for text in answer.iter_text():
                    received += text
                    begun.set()
            return received

        return client

    def _ask(self, path: str, body: dict[str, Any]) -> Callable[[threading.Event], httpx2.Response]:
        def client(begun: threading.Event) -> httpx2.Response:
            begun.set()
            return httpx2.post(self.url + path, json=body, headers=ANTHROPIC, timeout=60)

        return client

    def _follow(self, path: str) -> Callable[[threading.Event], str]:
        def client(begun: threading.Event) -> str:
            until("it is there", lambda: httpx2.get(f"{self.url}{path}", timeout=10).status_code == 200, 30)
            with httpx2.stream("GET", f"{self.url}{path}?follow=true", timeout=60) as answer:
                assert answer.status_code == 200, answer.read()
                begun.set()
                return "".join(answer.iter_text())

        return client


WEIGHTS: dict[str, Any] = {
    "model_name": "llama-2-chat",
    "model_format": "ggufv2",
    "quantization": "Q8_0",
    "model_engine": "llama.cpp",
    "lanes": 8,  # places for all clients at once
}


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> None:
    WEIGHTS["model_path"] = str(write_gguf(TINY, "Q8_0", tmp_path_factory.mktemp("tiny") / "tiny.gguf"))


@pytest.fixture(params=["1", "2"], ids=["one process", "two gateway processes"])
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    env = {
        "XINFERENCE_GATEWAY_WORKERS": request.param,
        "XINFERENCE_DRAIN_SECONDS": "0.5",
        "XINFERENCE_STOP_SECONDS": "3",
        "XINFERENCE_GRACE_SECONDS": "20",
    }
    home = Home(tmp_path, free_port(), env)
    yield home
    home.clean_up()


def serve(home: Home) -> subprocess.Popen[bytes]:
    with (home.path / "server.log").open("ab") as log:
        words = [sys.executable, "-m", "tests.fakes.stand_in_server"]
        server = subprocess.Popen(words, cwd=ROOT, env=home.environment, stdout=log, stderr=log, start_new_session=True)

    def answers() -> bool:
        assert server.poll() is None, (home.path / "server.log").read_text()
        return home.answers()

    until("the server answers", answers)
    return server


def launch(home: Home, uid: str, script: dict[str, Any], **more: Any) -> None:
    body = {**WEIGHTS, "model_uid": uid, "script": script, **more}
    wait = str("on_demand" not in more).lower()  # an earlier stop may have left it loading
    answer = httpx2.post(f"{home.url}/v1/models?wait_ready={wait}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text


def is_told(response: httpx2.Response) -> bool:
    """Whether an answer is the typed 503 of a stop."""
    assert response.status_code == 503, (response.status_code, response.text)
    assert int(response.headers["retry-after"]) > 0
    assert "server_stopping" in response.text, response.text
    return response.headers["content-type"] == "application/json"


def check(told: dict[str, Any]) -> None:
    for name, answer in told.items():
        if isinstance(answer, httpx2.Response):
            assert is_told(answer), name
        elif name.startswith("stream"):
            last = sse_events(answer)[-1]
            assert last["error"]["code"] == "server_stopping", (name, last)
        elif name == "anthropic stream":
            assert answer.endswith("\n\n") and "event: error\ndata: " in answer, name
            assert sse_events(answer)[-1]["error"]["code"] == "server_stopping", name
        elif name == "events":
            assert sse_events(answer)[-1]["event_type"] == "SERVER_STOPPING", (name, answer)
        else:
            assert answer.endswith("The server is stopping.\n"), (name, answer)


def stop_under_load(home: Home, server: subprocess.Popen[bytes], way: Callable[..., None]) -> None:
    """Stop a server with clients of every kind; each is told so by type, those that wait for a load at once."""
    with ThreadPoolExecutor(20) as threads:
        load = Load(home.url)
        try:
            load.start(threads)
            until("it loads", lambda: home.instance("demand")["status"] == "LOADING")
        except BaseException:
            home.clean_up()  # else the clients' threads go on for ever
            raise
        began = time.monotonic()
        way(home, server)
        check({name: future.result(60) for name, future in load.told.items()})
        assert server.wait(60) == 0
        assert time.monotonic() - began < 40


def test_each_of_many_stops_tells_every_client_and_leaves_nothing(home: Home) -> None:
    for number, way in zip(range(STOPS), itertools.cycle(WAYS), strict=False):
        server = serve(home)
        launch(home, "slow", {"chunks": 10**6, "interval": 0.02})
        launch(home, "late", {"delay": NEVER})
        launch(home, "demand", {"health_delay": NEVER}, on_demand=True)
        stop_under_load(home, server, way)
        log = (home.path / "server.log").read_text()
        assert "Traceback" not in log, (number, log)
        if way is not stopped_by_sigterm:
            until("nothing is left", home.nothing_left, 10)


def test_answers_within_the_time_are_whole(tmp_path: Path) -> None:
    home = Home(tmp_path, free_port(), {"XINFERENCE_DRAIN_SECONDS": "60"})
    with ExitStack() as stack:
        stack.callback(home.clean_up)
        server = serve(home)
        launch(home, "m", {"chunks": 20, "interval": 0.1})
        body = CHAT | {"model": "m", "stream": True}
        with httpx2.stream("POST", f"{home.url}/v1/chat/completions", json=body, timeout=60) as answer:
            pieces = answer.iter_text()
            first = next(pieces)
            server.terminate()
            until("no request is taken", lambda: not home.answers())
            events = sse_events(first + "".join(pieces))
        assert events[-1] == "[DONE]" and len(events) > 20
        assert server.wait(20) == 0


def test_a_launch_right_after_a_stop_under_load_works(home: Home) -> None:
    server = serve(home)
    launch(home, "slow", {"chunks": 10**6, "interval": 0.02})
    body = CHAT | {"model": "slow", "stream": True}
    with httpx2.stream("POST", f"{home.url}/v1/chat/completions", json=body, timeout=60) as answer:
        pieces = answer.iter_text()
        next(pieces)
        stopped_by_command(home, server)
        assert server.poll() is not None or server.wait(1) == 0
        assert "server_stopping" in "".join(pieces)
    again = serve(home)
    until("the model is back", lambda: home.instance("slow")["status"] == "READY")
    # A server that is stopping still has the home, and a new one is started when it has left.
    again.terminate()
    client = [sys.executable, "-c", ENSURE]
    done = subprocess.run(client, cwd=ROOT, env=home.environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert home.answers()


ENSURE = """
from xinference.client.local_server import ensure_server
from xinference.config import Settings
ensure_server(Settings.from_env(), lambda: None)
"""


def test_a_further_interrupt_kills_the_engines_and_the_end_is_whole(tmp_path: Path) -> None:
    home = Home(tmp_path, free_port(), {"XINFERENCE_STOP_SECONDS": "600"})
    with ExitStack() as stack:
        stack.callback(home.clean_up)
        server, log = serve(home), home.path / "server.log"
        launch(home, "m", {"ignore_sigterm": True})
        assert httpx2.post(f"{home.url}/v1/chat/completions", json=CHAT | {"model": "m"}, timeout=30).is_success
        server.send_signal(signal.SIGINT)
        until("it says what a further one does", lambda: "Ctrl+C kills them" in log.read_text())
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGINT):
            server.send_signal(number)
        assert server.wait(30) == 0
        assert "ended (engines stopped)" in log.read_text() and "Traceback" not in log.read_text()
        until("nothing is left", home.nothing_left)
        serve(home)
        stored = httpx2.get(f"{home.url}/v1/usage?by=model,status", timeout=10).json()
        assert [(each["model"], each["requests"]) for each in stored if each["status"] == 200] == [("m", 1)], stored


def test_a_stop_ends_the_engines_that_a_server_has_left_for_the_next_one(tmp_path: Path) -> None:
    home = Home(tmp_path, free_port(), {"XINFERENCE_GRACE_SECONDS": "600", "XINFERENCE_STOP_SECONDS": "1"})
    with ExitStack() as stack:
        stack.callback(home.clean_up)
        server = serve(home)
        launch(home, "m", {})
        launch(home, "stubborn", {"ignore_sigterm": True})
        server.terminate()
        assert server.wait(30) == 0
        assert len(home.processes()) > 0
        told = home.cli("stop")
        assert told.returncode == 0 and "Ended the engines that the last server had left running: 2." in told.stderr
        assert home.nothing_left()
        assert home.cli("stop").stderr == f"No server runs at {home.url}.\n"
