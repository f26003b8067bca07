"""A hub that never completes an answer holds up nothing but the requests that ask it."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.home import Home
from tests.support.polling import until
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "assets" / "tiny-llama2-chat-hf"
QUESTIONS = 40
HUB_SECONDS = 25.0


class DrippingHub:
    """Sends a byte of an answer's header each half second, for ever."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = 0
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-slow: ")
            while not self.ended.wait(0.5):
                connection.sendall(b"x")


@pytest.fixture
def hub() -> Iterator[DrippingHub]:
    hub = DrippingHub()
    yield hub
    hub.ended.set()
    hub.listener.close()


@pytest.fixture
def home(tmp_path: Path, hub: DrippingHub) -> Iterator[Home]:
    (tmp_path / "home").mkdir()
    env = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "huggingface"),
        "XINFERENCE_MODEL_SRC": "huggingface",
        "XINFERENCE_HUB_SECONDS": str(HUB_SECONDS),
        "XINFERENCE_DRAIN_SECONDS": "0.5",
    }
    home = Home(tmp_path / "home", free_port(), env)
    yield home
    home.clean_up()


def serve(home: Home) -> subprocess.Popen[bytes]:
    with (home.path / "server.log").open("ab") as log:
        words = [sys.executable, "-m", "tests.fakes.stand_in_server"]
        server = subprocess.Popen(words, cwd=ROOT, env=home.environment, stdout=log, stderr=log, start_new_session=True)
    until("the server answers", home.answers)
    return server


def test_questions_to_a_slow_hub_hold_up_nothing_else(home: Home, hub: DrippingHub, tmp_path: Path) -> None:
    server = serve(home)
    weights = {
        "model_name": "llama-2-chat",
        "model_format": "ggufv2",
        "quantization": "Q8_0",
        "model_engine": "llama.cpp",
        "model_path": str(write_gguf(TINY, "Q8_0", tmp_path / "tiny.gguf")),
    }
    assert home.launch(**weights, model_uid="m").status_code == 200
    engine = home.engine_pid("m")

    def ask(number: int) -> httpx2.Response:
        body = {"model_name": f"org/repo-{number}", "model_engine": "llama.cpp"}
        return httpx2.post(f"{home.url}/v1/models", json=body, timeout=90)

    with ThreadPoolExecutor(QUESTIONS) as threads:
        asked = [threads.submit(ask, number) for number in range(QUESTIONS)]
        until("the hub is asked", lambda: hub.connections >= 4)
        began = time.monotonic()
        for path in ("/v1/engines/llama-2-chat", "/v1/cache/models", "/v1/models/instances", "/status"):
            assert httpx2.get(home.url + path, timeout=HUB_SECONDS / 2).status_code == 200, path
        plan: dict[str, Any] = {**weights, "model_uid": "other"}
        dry_run = httpx2.post(f"{home.url}/v1/models?dry_run=true", json=plan, timeout=HUB_SECONDS / 2)
        assert dry_run.status_code == 200, dry_run.text
        os.kill(engine, signal.SIGKILL)
        counter = itertools.count()

        def is_back() -> bool:
            # Another one each time: a request that an engine did not survive is not taken again.
            body = {"model": "m", "messages": [{"role": "user", "content": f"hi {next(counter)}"}]}
            answer = httpx2.post(f"{home.url}/v1/chat/completions", json=body, timeout=HUB_SECONDS)
            return answer.status_code == 200

        until("the engine is back", is_back, HUB_SECONDS)
        assert not all(each.done() for each in asked), time.monotonic() - began
        told = {(answer.status_code, answer.json()["problem"]["code"]) for answer in (each.result() for each in asked)}
    assert told == {(504, "hub_timeout")}
    asking = threading.Thread(
        target=lambda: httpx2.post(f"{home.url}/v1/models", json={"model_name": "a/b"}), daemon=True
    )
    seen = hub.connections
    asking.start()
    until("the hub is asked once more", lambda: hub.connections > seen)
    server.terminate()
    assert server.wait(20) == 0  # with more than 40 threads that the hub holds
    assert "Traceback" not in (home.path / "server.log").read_text()
