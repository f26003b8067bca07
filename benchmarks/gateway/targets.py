"""The targets of the load: the engine that computes nothing, and our server in front of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from benchmarks.gateway.load import Load, Result

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Target:
    """A port, and the processes that serve it."""

    name: str
    port: int
    pids: dict[str, int] = field(default_factory=dict)
    """``engine``, and the processes whose cost is measured: ``server``, and its child processes if any."""
    key: str = "none"

    def measure(self, load: Load) -> Result:
        """Run `load` on this target in a separate process."""
        spec = replace(load, port=self.port, pids=self.pids, key=self.key)
        spec_json = json.dumps(asdict(spec))
        command = [sys.executable, "-m", "benchmarks.gateway.load"]
        done = subprocess.run(command, cwd=ROOT, input=spec_json, capture_output=True, text=True, check=True)
        return Result(**json.loads(done.stdout))


@contextlib.contextmanager
def costless(versus: dict[str, Path], processes: int = 1) -> Iterator[list[Target]]:
    """The engine that computes nothing, our server in front of it, and other source trees' servers, for the block.

    With more than one of `processes` also our gateway with that number of processes; their CPU time is not measured.
    """
    with contextlib.ExitStack() as running:
        engine, port = running.enter_context(_program("benchmarks.gateway.engine"))
        targets = [Target("engine alone", port, {"engine": engine})]
        for name, source in {"xinference": ROOT / "src", **versus}.items():
            started = _program("benchmarks.gateway.server", f"http://127.0.0.1:{port}", source=source)
            pid, own_port = running.enter_context(started)
            targets.append(Target(name, own_port, {"server": pid, "engine": engine}))
        if processes > 1:
            started = _program("benchmarks.gateway.several", f"http://127.0.0.1:{port}", str(processes))
            targets.append(Target(f"{processes} processes", running.enter_context(started)[1], {"engine": engine}))
        yield targets


@contextlib.contextmanager
def _program(module: str, *arguments: str, source: Path = ROOT / "src") -> Iterator[tuple[int, int]]:
    """A program of the checkout that has `source`, which prints its port; yields its pid and port for the block."""
    root = source.parent  # each commit's benchmark knows how its own server is made
    env = os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{root}"}
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.terminate()
