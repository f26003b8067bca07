"""One home of its own for a test: its server, commands and processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.support.polling import until

UID = "smollm2-instruct"
SMOLLM2 = ("--model-name", UID, "--size-in-billions", "0_135", "--model-format", "ggufv2", "--quantization", "Q4_1")


@dataclass
class Home:
    """One home with its port: commands, servers and processes that belong to it."""

    path: Path
    port: int
    env: dict[str, str] = field(default_factory=dict)
    host: str = field(default="127.0.0.1", kw_only=True)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("XINFERENCE_")}
        ours = {"XINFERENCE_HOME": str(self.path), "XINFERENCE_PORT": str(self.port)}
        return inherited | ours | self.env

    def cli(self, *arguments: str, stdin: str | None = "", seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """Run `xinference` with these arguments."""
        return self.run([sys.executable, "-m", "xinference.cli.main", *arguments], stdin, seconds)

    def run(
        self, words: Sequence[str], stdin: str | None = "", seconds: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in this home, found on this home's PATH."""
        found = shutil.which(words[0], path=self.environment["PATH"]) or words[0]
        return subprocess.run(
            [found, *words[1:]], env=self.environment, input=stdin, capture_output=True, text=True, timeout=seconds
        )

    def serve(self) -> subprocess.Popen[bytes]:
        """Start a server and wait until it answers."""
        with (self.path / "test-server.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "xinference.server"],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
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
        answer = httpx2.get(f"{self.url}/v1/models/instances", params={"model_uid": uid}, timeout=60).json()
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
        """End all of it by process group: vLLM's workers write over the environment they are known by."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                group = os.getpgid(process.pid)
                os.kill(process.pid, signal.SIGKILL) if group == os.getpgid(0) else os.killpg(group, signal.SIGKILL)


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def sse_events(text: str) -> list[Any]:
    """The data of each server-sent event, JSON decoded where it is JSON."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [d if d == "[DONE]" else json.loads(d) for d in data]
