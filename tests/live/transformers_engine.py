"""The Transformers server as a process of its own, in whichever environment there is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.home import sse_events
from tests.support.polling import until
from tests.support.ports import free_port
from xinference.config import Settings
from xinference.engines.transformers.engine import PROGRAM, VERSION
from xinference.environments.environments import Environments
from xinference.environments.spec import EnvironmentSpec

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
UID, KEY = "tiny", "secret"


def python_of_environment() -> Path:
    """The interpreter named by XINFERENCE_TEST_TRANSFORMERS_PYTHON, or that of an environment in the home."""
    named = os.environ.get("XINFERENCE_TEST_TRANSFORMERS_PYTHON")
    if named:
        return Path(named)
    found = Environments(Settings.from_env()).find(EnvironmentSpec("Transformers", VERSION, "cpu"))
    if found is None:
        pytest.skip("there is no Transformers environment: `xinference env install transformers` makes one")
    return found


class RunningEngine:
    """Requests to one running server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.headers = {"Authorization": f"Bearer {KEY}"}

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return httpx2.post(f"{self.url}{path}", json=body, headers=self.headers, timeout=120)

    def chat(self, question: str = "Who are you?", **fields: Any) -> dict[str, Any]:
        """The answer to one question, likeliest tokens if nothing else is said."""
        messages = [{"role": "user", "content": question}]
        answer = self.post("/v1/chat/completions", **{"model": UID, "messages": messages, "temperature": 0} | fields)
        assert answer.status_code == 200, answer.text
        whole: dict[str, Any] = answer.json()
        return whole

    def text(self, question: str = "Who are you?", **fields: Any) -> str:
        content: str = self.chat(question, **fields)["choices"][0]["message"]["content"]
        return content

    def stream(self, path: str, **fields: Any) -> list[Any]:
        answer = self.post(path, **{"model": UID, "temperature": 0, "stream": True} | fields)
        assert answer.status_code == 200, answer.text
        return sse_events(answer.text)

    def metric(self, name: str) -> float:
        text = httpx2.get(f"{self.url}/metrics", headers=self.headers, timeout=30).text
        line = next(line for line in text.splitlines() if line.startswith(f"xinference_transformers_{name} "))
        return float(line.split()[1])


@contextmanager
def engine(log: Path, **params: Any) -> Iterator[RunningEngine]:
    """A server with the tiny model, ended at the end."""
    port = free_port()
    given = {"uid": UID, "model_path": str(HF), "context_length": 300, "max_num_seqs": 4, "threads": 1} | params
    env = {**os.environ, "XINFERENCE_TRANSFORMERS_PARAMS": json.dumps(given), "XINFERENCE_ENGINE_KEY": KEY}
    words = [str(python_of_environment()), "-I", str(PROGRAM), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(words, env=env, stdout=output, stderr=output)
    try:
        until("the model is loaded", lambda: _healthy(port) or process.poll() is not None, 400)
        assert process.poll() is None, log.read_text()
        yield RunningEngine(port)
    finally:
        process.terminate()
        assert process.wait(60) == 0, "SIGTERM ends it without an error"


def _healthy(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
    except httpx2.TransportError:
        return False
