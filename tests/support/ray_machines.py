"""A Ray cluster of somebody else: its nodes as processes on this machine, and what another driver sees in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.support.polling import until
from xinference.fabric.ray_node import RayNode, RayPorts

#: What another driver sees: the living nodes, actors, placement groups and jobs, and the free resources.
_LOOK = """
import json, sys, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level=40, namespace="somebody")
from ray._private.state import actors, jobs
from ray.util import placement_group_table
own = ray.get_runtime_context().get_job_id()
print(json.dumps({
    "nodes": sorted(node["NodeID"] for node in ray.nodes() if node["Alive"]),
    "actors": [actor["Name"] for actor in actors().values() if actor["State"] != "DEAD"],
    "groups": [group["bundles"][0] for group in placement_group_table().values() if group["state"] != "REMOVED"],
    "jobs": [job["JobID"] for job in jobs() if not job["IsDead"] and job["JobID"] != own],
    "free": ray.available_resources(),
}))
"""

#: What `ray start` prints when it has started, and how often it is tried.
STARTED, STARTS = "Ray runtime started", 4


@dataclass
class RayMachines:
    """The nodes of a Ray cluster; the first one is the head. Ports from `first_port` on are used."""

    folder: Path
    cpus: tuple[int, ...]
    gpus: tuple[int, ...]
    first_port: int = 10300
    env: dict[str, str] = field(default_factory=dict)
    """For the processes of Ray, and so for what is started beside them."""
    head_words: tuple[str, ...] = ()
    """Further options of the head."""
    head_env: dict[str, str] = field(default_factory=dict)
    nodes: list[RayNode] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, (cpus, gpus) in enumerate(zip(self.cpus, self.gpus, strict=True)):
            first = self.first_port + 1 + 5 * number
            workers = self.first_port + 100 + 50 * number
            ports = RayPorts(self.first_port, first, first + 1, first + 2, first + 3, first + 4, workers, workers + 49)
            folder = self.folder / f"ray{number}"
            self.nodes.append(RayNode(f"m{number}", "127.0.0.1", Path(os.devnull), folder, gpus, cpus, ports))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.first_port}"

    def start(self, number: int) -> None:
        """Start the Ray processes of a node, and wait until they are seen."""
        for _ in range(STARTS):
            if self._start(number):
                return
            self.kill(number)
        raise AssertionError(f"Ray does not start: {(self.folder / f'ray{number}.log').read_text()[-2000:]}")

    def _start(self, number: int) -> bool:
        """Start a node once. Ray itself gives up after 30 s, which a busy machine may need."""
        node, log = self.nodes[number], self.folder / f"ray{number}.log"
        node.clear()
        command = node.node_command(self.address) if number else node.head_command()
        command = [*command, *(self.head_words if number == 0 else ())]
        environment = os.environ | self.env | node.environment()
        with log.open("ab") as output:
            begun = output.tell()
            process = subprocess.Popen(
                command, env=environment | (self.head_env if number == 0 else {}), stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        until("Ray runs or has given up", lambda: process.poll() is not None or STARTED in _text(log, begun), 180)
        return process.poll() is None

    def raylet(self, number: int) -> psutil.Process | None:
        """The raylet of a node."""
        return next((p for p in self.processes(number) if "raylet/raylet" in _words(p)), None)

    def processes(self, number: int) -> list[psutil.Process]:
        """The Ray processes of a node, also those that Ray started for tasks."""
        mark = str(self.nodes[number].folder)
        return [p for p in psutil.process_iter() if mark in _words(p) and p.pid != os.getpid()]

    def kill(self, number: int) -> None:
        """Kill the Ray processes of a node."""
        for process in self.processes(number):
            _kill(process)

    def kill_raylet(self, number: int) -> None:
        """Kill the raylet of a node only: Ray's own agents end with it."""
        if (raylet := self.raylet(number)) is not None:
            _kill(raylet)
            raylet.wait(30)

    def look(self) -> dict[str, Any]:
        """What another driver sees."""
        seen: dict[str, Any] = json.loads(self.run(_LOOK))
        return seen

    def run(self, program: str) -> str:
        """Run a program with the address of Ray as its argument; returns the last line of its output."""
        command = [sys.executable, "-c", program, self.address]
        environment = os.environ | self.env
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def close(self) -> None:
        """Kill all of it."""
        for number in range(len(self.nodes)):
            self.kill(number)


def _text(file: Path, position: int) -> str:
    with file.open("rb") as opened:
        opened.seek(position)
        return opened.read().decode("utf-8", "replace")


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.Error:
        return
