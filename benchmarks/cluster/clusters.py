"""The servers that are measured: one machine, and a supervisor with workers, all with scripted engines."""

from __future__ import annotations

import http.client
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from tests.formats.gguf_model import write_gguf
from tests.support.cluster_processes import ClusterProcesses, Host
from tests.support.network_hosts import missing, network_hosts
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome, scripted_launch

HF = Path(__file__).parents[2] / "tests" / "assets" / "tiny-llama2-chat-hf"
UID = "m"


@contextmanager
def weights() -> Iterator[Path]:
    """A file of weights in a folder for the homes."""
    with tempfile.TemporaryDirectory(prefix="xi-") as folder:
        yield write_gguf(HF, "Q8_0", Path(folder) / "tiny.gguf")


@contextmanager
def one_machine(file: Path, lanes: int | None = None, **script: Any) -> Iterator[ScriptedHome]:
    """A server on one machine with one replica; `lanes` is the number of requests that it computes at one time."""
    home = ScriptedHome(Path(tempfile.mkdtemp(dir=file.parent)), free_port(), {}, file)
    home.start()
    try:
        answer = home.post_launch(UID, lanes=lanes, script=script)
        answer.raise_for_status()
        yield home
    finally:
        home.clean_up()


@contextmanager
def cluster(file: Path, workers: int, lost_seconds: float = 30.0, *, cables: bool = True) -> Iterator[ClusterProcesses]:
    """A supervisor without models and its workers, each on a host of its own if this user may make hosts."""
    if cables and missing() is None:
        with network_hosts(workers + 1) as hosts:
            yield from _started(file, workers, lost_seconds, hosts)
    else:
        yield from _started(file, workers, lost_seconds, [])


def _started(file: Path, workers: int, lost_seconds: float, hosts: list[Host]) -> Iterator[ClusterProcesses]:
    env = {"XINFERENCE_NODE_LOST_SECONDS": str(lost_seconds)}
    folder = Path(tempfile.mkdtemp(dir=file.parent))
    made = ClusterProcesses(folder, env=env, hosts=hosts, is_scripted=True)
    try:
        made.start()
        for _ in range(workers):
            made.add_worker()
        yield made
    finally:
        made.close()


def launch(made: ClusterProcesses, file: Path, replica: int = 1, lanes: int | None = None, **script: Any) -> None:
    """Launch the model, and wait until it is ready; `lanes` is the number of requests of a replica at one time."""
    body = scripted_launch(file, UID, replica=replica, lanes=lanes, script=script)
    httpx2.post(f"{made.home.url}/v1/models", json=body, timeout=90).raise_for_status()


def cpu_seconds(pid: int) -> float:
    """Processor time of a process; the clock has nanoseconds, where /proc has steps of 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)


@dataclass(frozen=True)
class Streamed:
    """One stream, in seconds."""

    first: float
    whole: float


class Client:
    """One connection to a server, which is kept."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=120)

    def stream(self) -> Streamed:
        """Read one stream to its end."""
        body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
        began = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        line = answer.readline()
        first = time.perf_counter() - began
        rest = answer.read()
        assert line.startswith(b"data: ") and rest.endswith(b"data: [DONE]\n\n"), (answer.status, line, rest[-200:])
        return Streamed(first, time.perf_counter() - began)

    def close(self) -> None:
        self._connection.close()
