"""The scripts of the images, with an `xinference` that records what it is told."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.dockerfile import IMAGE_SCRIPTS
from tests.support.loopback_server import serve_connections

pytestmark = pytest.mark.process

#: Writes its words into a file, and answers what the test has put down for it.
STUB = """#!{python}
import json, os, sys
from pathlib import Path
home = Path(os.environ["XINFERENCE_HOME"])
with (home / "calls").open("a") as calls:
    calls.write(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) + "\\n")
if "create" in sys.argv:
    print("the key")
if "info" in sys.argv:
    states = json.loads((home / "states").read_text())
    print(json.dumps([states[0]]))
    (home / "states").write_text(json.dumps(states[1:] or states))
elif "--json" in sys.argv:
    print("{{}}")
"""


@dataclass
class Container:
    """The home of one container, with the programs that its scripts call."""

    home: Path
    programs: Path

    def run(self, script: str, *words: str) -> subprocess.CompletedProcess[str]:
        path = IMAGE_SCRIPTS / script
        program = ["sh"] if path.read_text().startswith("#!/bin/sh") else [sys.executable]
        environment = {
            **os.environ,
            "XINFERENCE_HOME": str(self.home),
            "XINFERENCE_PORT": os.environ.get("XINFERENCE_PORT", "1"),
            "PATH": f"{self.programs}:{os.environ['PATH']}",
        }
        return subprocess.run(
            [*program, str(path), *words], env=environment, capture_output=True, text=True, timeout=60
        )

    @property
    def calls(self) -> list[str]:
        return (self.home / "calls").read_text().splitlines()

    def become_worker(self, *states: Mapping[str, object]) -> None:
        (self.home / "cluster").mkdir()
        (self.home / "cluster" / "membership.json").write_text(json.dumps({"node_id": "n1"}))
        (self.home / "states").write_text(json.dumps([{"node_id": "n1", **state} for state in states]))


@pytest.fixture
def container(tmp_path: Path) -> Container:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("xinference", "xinference-supervisor", "xinference-worker"):
        (programs / name).write_text(STUB.format(python=sys.executable))
        (programs / name).chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    return Container(home, programs)


def test_a_supervisor_makes_a_key_once_and_only_its_user_can_read_it(container: Container) -> None:
    assert container.run("start-supervisor", "--no-models").returncode == 0
    assert container.run("start-supervisor", "--no-models").returncode == 0
    key = container.home / "admin.key"
    assert key.read_text() == "the key\n" and stat.S_IMODE(key.stat().st_mode) == 0o600
    assert container.calls == [
        "xinference keys create --name admin --scope manage --scope use",
        "xinference-supervisor --no-models",
        "xinference-supervisor --no-models",
    ]


def test_a_worker_is_drained_until_it_has_no_replica_and_taken_in_again_at_its_next_start(container: Container) -> None:
    ready = {"state": "READY", "replicas": ["a"]}
    container.become_worker(ready, ready, {"state": "DRAINING", "replicas": []})
    assert container.run("drain-worker", "30").returncode == 0
    assert container.calls == [
        "xinference cluster info --json",
        "xinference cluster drain n1 --json",
        "xinference cluster info --json",
        "xinference cluster info --json",
    ]
    assert container.run("start-worker", "--endpoint", "http://x:1").returncode == 0
    assert sorted(container.calls[4:]) == ["xinference cluster undrain n1", "xinference-worker --endpoint http://x:1"]
    assert not (container.home / "drained-by-stop").exists()


def test_a_drain_by_a_person_is_not_undone(container: Container) -> None:
    container.become_worker({"state": "DRAINING", "replicas": []})
    assert container.run("drain-worker").returncode == 0
    assert container.run("start-worker").returncode == 0
    assert container.calls == ["xinference cluster info --json", "xinference-worker"]


def test_a_drain_ends_with_its_time(container: Container) -> None:
    container.become_worker({"state": "READY", "replicas": ["a"]})
    assert container.run("drain-worker", "0").returncode == 0


def test_a_worker_is_healthy_while_it_is_linked(container: Container) -> None:
    container.become_worker()
    assert container.run("healthcheck").returncode == 1
    (container.home / "cluster" / "linked").touch()
    assert container.run("healthcheck").returncode == 0


async def test_a_supervisor_is_healthy_while_it_answers(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    status = b"200 OK"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readline()).startswith(b"GET /readyz ")
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with serve_connections(answer) as port:
        monkeypatch.setenv("XINFERENCE_PORT", str(port))
        assert (await asyncio.to_thread(container.run, "healthcheck")).returncode == 0
        status = b"503 Stopping"
        assert (await asyncio.to_thread(container.run, "healthcheck")).returncode == 1
    assert (await asyncio.to_thread(container.run, "healthcheck")).returncode == 1
