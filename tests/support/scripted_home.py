"""A home whose server runs scripted engines: real processes, no model."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.fakes.fifth_engine.dialect import NAME
from tests.support.home import Home
from tests.support.polling import until
from xinference.process.leftovers import KEEPER_VARIABLE

ROOT = Path(__file__).parents[2]


def scripted_launch(weights: Path, uid: str, **fields: Any) -> dict[str, Any]:
    """The body of a launch of the fifth engine; further fields are the engine's script, the replicas and so on."""
    return {
        "model_name": "llama-2-chat",
        "model_uid": uid,
        "model_format": "ggufv2",
        "quantization": "Q8_0",
        "model_engine": NAME,
        "model_path": str(weights),
        "n_gpu": None,
        **fields,
    }


def scripted_engines(home: Path) -> list[psutil.Process]:
    """The main processes of all scripted engines of a home, whether any server knows them or not."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = Path(process.environ().get(KEEPER_VARIABLE, "")).is_relative_to(home)
            is_engine = "--script" in process.cmdline()
            if marked and is_engine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@dataclass
class ScriptedHome(Home):
    """A home with a server that knows the fifth engine, and weights for it."""

    weights: Path = field(default_factory=Path)
    server: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> subprocess.Popen[bytes]:
        """Start a server; with `wait` until it answers."""
        log = self.weights.parent / "server.log"  # not in the home, whose disk may be full
        with log.open("ab") as output:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.fifth_engine.server"],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if wait:
            until("the server answers", self.answers)
        return self.server

    def kill(self) -> None:
        """End the server without a chance to say anything."""
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def request(self, uid: str, **fields: Any) -> dict[str, Any]:
        """The body of a launch; further fields are the engine's script, the replicas and so on."""
        return scripted_launch(self.weights, uid, **fields)

    def post_launch(self, uid: str, *, wait_ready: bool = True, **fields: Any) -> httpx2.Response:
        parameters = {"wait_ready": str(wait_ready).lower()}
        return httpx2.post(f"{self.url}/v1/models", params=parameters, json=self.request(uid, **fields), timeout=90)

    def delete(self, path: str) -> httpx2.Response:
        return httpx2.delete(f"{self.url}{path}", timeout=60)

    def status(self, uid: str) -> str:
        """The status of a model; ``GONE`` if there is none."""
        entries = httpx2.get(f"{self.url}/v1/models/instances", params={"model_uid": uid}, timeout=30).json()
        return str(entries[0]["status"]) if isinstance(entries, list) and entries else "GONE"

    def engines(self) -> list[psutil.Process]:
        """The main processes of all engines of this home, whether any server knows them or not."""
        return scripted_engines(self.path)

    def keeper_pid(self, uid: str) -> int:
        pid: int = self.instance(uid)["replicas"][0]["keeper_pid"]
        return pid

    @contextmanager
    def locked_store(self) -> Iterator[None]:
        """Let another program hold the lock of the store while the block runs."""
        other = sqlite3.connect(self.path / "xinference.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()

    def clean_up(self) -> None:
        for process in self.processes():  # stopped ones, too
            try:
                os.kill(process.pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
        super().clean_up()
