"""A supervisor and its workers as processes on this machine, each with a home of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.support.home import Home, send_signal
from tests.support.polling import until
from tests.support.ports import free_port
from xinference.nodes.joining import WorkerHome as Membership

SUPERVISOR = "from xinference.cli.main import supervisor; supervisor()"
WORKER = "from xinference.cli.main import worker; worker()"
#: Before the program of a supervisor or worker: it knows the scripted engine.
SCRIPTED = "from tests.fakes.fifth_engine.server import register; register(); "
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Host:
    """Where processes run: their address, and the words before their commands."""

    address: str
    prefix: tuple[str, ...] = ()


@dataclass
class WorkerHome:
    """The home of one worker, with its process."""

    home: Home
    process: subprocess.Popen[bytes] | None = None
    node_id: str = ""

    def kill_machine(self) -> list[int]:
        """Kill the worker and all that it has started, as a power cut does; returns the pids."""
        pids = [process.pid for process in self.home.processes()]
        for pid in pids:
            send_signal(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(30)
        return pids


@dataclass
class ClusterProcesses:
    """The processes of a cluster in `folder`. Weights are shared if `cache` names a folder."""

    folder: Path
    cache: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    workers: list[WorkerHome] = field(default_factory=list)
    hosts: Sequence[Host] = ()
    """The hosts of the supervisor and of the workers in turn; this machine's loopback after them."""
    is_scripted: bool = False
    """Whether the programs know the scripted engine."""
    environments: Path | None = None
    """A folder of built environments for all homes; None: each has its own."""

    def __post_init__(self) -> None:
        self._free_hosts = list(self.hosts)
        self._prefixes: dict[Path, tuple[str, ...]] = {}
        self.home = self._make_home("supervisor")
        self.link_port = free_port()
        self.server: subprocess.Popen[bytes] | None = None

    # -- processes --------------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> None:
        """Start the supervisor; with `wait` until it answers."""
        words = [
            "-H",
            self.home.host,
            "--allow-unauthenticated",
            "-p",
            str(self.home.port),
            "--supervisor-port",
            str(self.link_port),
            "--no-models",
        ]
        self.server = self._spawn(self.home, SUPERVISOR, words)
        if wait:
            until("the supervisor answers", self.home.answers, 60)

    def add_worker(self, *words: str) -> WorkerHome:
        """Let another worker join, and wait until it is READY; `words` are further options."""
        return self._wait_joined(self._begin_worker(*words))

    def add_workers(self, count: int) -> list[WorkerHome]:
        """Let several workers join at the same time, and wait until all are READY."""
        return [self._wait_joined(worker) for worker in [self._begin_worker() for _ in range(count)]]

    def kill_server(self) -> None:
        """End the supervisor without a chance to say anything."""
        assert self.server is not None
        send_signal(self.server.pid, signal.SIGKILL)
        self.server.wait(30)

    def start_worker(self, worker: WorkerHome, *words: str) -> None:
        """Start the process of a worker."""
        worker.process = self._spawn(worker.home, WORKER, ["--worker-port", "0", *words])

    def close(self) -> None:
        """Kill all that was started."""
        for home in (self.home, *(worker.home for worker in self.workers)):
            home.clean_up()
        for process in (self.server, *(worker.process for worker in self.workers)):
            if process is not None:
                process.wait(30)

    # -- questions --------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """The answer of the supervisor's API."""
        answer = httpx2.get(f"{self.home.url}{path}", timeout=60)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any = None) -> Any:
        """The answer of the supervisor's API."""
        answer = httpx2.post(f"{self.home.url}{path}", json=body, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes."""
        found: list[dict[str, Any]] = self.get("/v1/cluster/nodes")
        return found

    def state(self, worker: WorkerHome) -> str:
        """The state of a worker's node."""
        return next((str(node["state"]) for node in self.nodes() if node["node_id"] == worker.node_id), "unknown")

    def wait_for(self, worker: WorkerHome, state: str, seconds: float = 60) -> None:
        """Wait until a node has a state."""
        until(f"{worker.node_id} is {state}", lambda: self.state(worker) == state, seconds)

    def replicas(self, uid: str) -> list[dict[str, Any]]:
        """The replicas of a model."""
        found: list[dict[str, Any]] = self.get(f"/v1/models/{uid}/replicas")
        return found

    def ready_on(self, uid: str) -> dict[str, int]:
        """The nodes with a ready replica of a model, and the pid of its engine."""
        return {each["node"]: each["engine_pid"] for each in self.replicas(uid) if each["status"] == "READY"}

    def instance_keeper(self, uid: str, worker: WorkerHome) -> int:
        """The pid of the keeper of a model's replica on a node."""
        return next(int(each["keeper_pid"]) for each in self._replica_entries(uid) if each["node"] == worker.node_id)

    def _replica_entries(self, uid: str) -> list[dict[str, Any]]:
        entry = next(each for each in self.get("/v1/models/instances") if each["model_uid"] == uid)
        return list(entry["replicas"])

    def engines(self) -> dict[str, list[int]]:
        """Node id -> the pids of the engines that run there, found by a scan of all processes."""
        return {
            worker.node_id: [each.pid for each in worker.home.processes() if _is_engine(each)]
            for worker in self.workers
        }

    def _begin_worker(self, *words: str) -> WorkerHome:
        token = self.post("/v1/cluster/tokens")["token"]
        worker = WorkerHome(self._make_home(f"worker{len(self.workers)}"))
        self.workers.append(worker)
        self.start_worker(worker, "-e", self.home.url, "--token", token, *words)
        return worker

    def _wait_joined(self, worker: WorkerHome) -> WorkerHome:
        membership = Membership(worker.home.path / "cluster")
        until("the worker has joined", lambda: membership.load() is not None, 60)
        joined = membership.load()
        assert joined is not None
        worker.node_id = joined.node_id
        self.wait_for(worker, "READY")
        return worker

    def _make_home(self, name: str) -> Home:
        path = self.folder / name
        path.mkdir(parents=True)
        host = self._free_hosts.pop(0) if self._free_hosts else Host("127.0.0.1")
        self._prefixes[path] = host.prefix
        if self.cache is not None:
            (path / "cache").symlink_to(self.cache)
        if self.environments is not None:
            (path / "environments").symlink_to(self.environments)
        return Home(path, free_port(), dict(self.env), host=host.address)

    def _spawn(self, home: Home, program: str, words: list[str]) -> subprocess.Popen[bytes]:
        prepared = SCRIPTED if self.is_scripted else ""
        with (home.path / "process.log").open("ab") as log:
            return subprocess.Popen(
                [*self._prefixes[home.path], sys.executable, "-c", prepared + program, *words],
                cwd=ROOT,
                env=home.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _is_engine(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return any("engines/llama_cpp/server.py" in word for word in words)
