"""A supervisor that uses a Ray cluster of somebody else, with the tiny model on llama.cpp."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.formats.gguf_model import write_gguf
from tests.support.home import Home, send_signal
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.ray_machines import RayMachines

UID = "onray"
HF = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
SUPERVISOR = "from xinference.cli.main import supervisor; supervisor()"


@dataclass
class Site:
    """The supervisor, and the Ray cluster that it uses."""

    ray: RayMachines
    home: Home
    workers: Path
    model: Path
    words: tuple[str, ...] = ()
    """Further options of the supervisor."""
    link_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["-H", "127.0.0.1", "-p", str(self.home.port), "--supervisor-port", str(self.link_port)]
        with (self.home.path / "process.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    SUPERVISOR,
                    *words,
                    "--no-models",
                    "--ray-address",
                    self.ray.address,
                    *self.words,
                ],
                env=self.home.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until("the supervisor answers", self.home.answers, 60)

    def end(self, number: signal.Signals) -> None:
        assert self.process is not None
        send_signal(self.process.pid, number)
        self.process.wait(120)

    def get(self, path: str) -> Any:
        answer = httpx2.get(f"{self.home.url}{path}", timeout=60)
        answer.raise_for_status()
        return answer.json()

    def ready(self) -> dict[str, str]:
        """Ray node -> our node, of those that are READY."""
        nodes = self.get("/v1/cluster/ray")["nodes"]
        return {node["ray_node"]: node["node_id"] for node in nodes if node["state"] == "READY"}

    def until_ready(self, count: int) -> dict[str, str]:
        until(f"{count} workers are READY", lambda: len(self.ready()) == count)
        return self.ready()

    def launch(self, replicas: int) -> None:
        body = {
            "model_name": "llama-2-chat", "model_format": "ggufv2", "model_size_in_billions": 7, "quantization": "Q8_0",
            "model_engine": "llama.cpp", "model_path": str(self.model), "n_ctx": 256, "n_parallel": 1, "model_uid": UID,
            "replica": replicas,
        }  # fmt: skip
        answer = httpx2.post(f"{self.home.url}/v1/models", json=body, timeout=300)
        assert answer.status_code == 200, answer.text
        until("all replicas are ready", lambda: len(self.engines()) == replicas)

    def engines(self) -> dict[str, int]:
        """Our node -> the pid of the ready replica there."""
        found = self.get(f"/v1/models/{UID}/replicas")
        return {each["node"]: each["engine_pid"] for each in found if each["status"] == "READY"}

    def beside_ray(self) -> list[psutil.Process]:
        """The workers, keepers and engines that live."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("XINFERENCE_HOME", "").startswith(str(self.workers))
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def worker_pids(self) -> list[int]:
        return sorted(p.pid for p in self.beside_ray() if "--ends-with-supervisor" in _words_of(p))

    def close(self) -> None:
        """Kill all that was started."""
        self.home.clean_up()
        for process in self.beside_ray():
            send_signal(process.pid, signal.SIGKILL)
        self.ray.close()
        if self.process is not None:
            self.process.wait(30)


def _words_of(process: psutil.Process) -> list[str]:
    """Its command line; empty if it has ended meanwhile."""
    try:
        words: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return words


def make_site(folder: Path, ray: RayMachines, *words: str) -> Site:
    """A supervisor that is not started yet; `words` are further options."""
    model = write_gguf(HF, "Q8_0", folder / "tiny.gguf")
    (folder / "supervisor").mkdir()
    settings = {"XINFERENCE_RAY_HOME": str(folder / "workers"), "XINFERENCE_WORKER_PORT": "0"}
    return Site(ray, Home(folder / "supervisor", free_port(), settings), folder / "workers", model, words)
