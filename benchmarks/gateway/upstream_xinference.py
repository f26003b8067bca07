"""Xinference 4.1.0 compared with this server, in turn, each with an engine that computes nothing.

python -m benchmarks.gateway.upstream_xinference --xinference-python PATH [--rounds 3] [--json FILE]

PATH is the Python of an environment with `pip install xinference==4.1.0`. Its REST layer, actors, model
class and serialisation run unchanged: only the library below them, xllamacpp, is replaced (`stand_in/`).
Two settings are not its defaults, and both save it work: no key check, and no environment for the model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks.gateway.cells import Figures, cells
from benchmarks.gateway.engine import MODEL
from benchmarks.gateway.report import table, write_json
from benchmarks.gateway.targets import Target, costless

STAND_IN = Path(__file__).parent / "stand_in"
#: Number of its requests for each load, so that it is busy for seconds, as our server is with more requests.
REQUESTS = {"stream": {1: 4, 8: 16, 32: 64}, "whole": {1: 60, 8: 160, 32: 256}}
#: A launch by name needs a file, which nothing reads.
LAUNCH = {"model_uid": MODEL, "model_name": "qwen2.5-instruct", "model_engine": "llama.cpp", "model_format": "ggufv2"}
LAUNCH |= {"model_size_in_billions": "0_5", "quantization": "q4_0"}
START_SECONDS = 180.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.upstream_xinference", description=__doc__)
    parser.add_argument("--xinference-python", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with costless({}) as targets, upstream(arguments.xinference_python.absolute()) as theirs:
        figures = measure(targets, theirs, arguments.rounds)
    print(table(figures))
    ours = [f for f in figures if f.target == "xinference"]
    peers = [f for f in figures if f.target == theirs.name]
    for a, b in zip(ours, peers, strict=True):
        each = ", ".join(f"{x / y:.1f}" for x, y in zip(a.rate, b.rate, strict=True))
        print(f"{a.cell.label}: {a.ratio(b):.1f} times {theirs.name} (rounds: {each})")
    if arguments.json:
        facts: dict[str, object] = {"machine": platform.machine(), "python": platform.python_version()}
        write_json(arguments.json, figures, facts)
    return 1 if any(f.errors for f in figures) else 0


def measure(targets: list[Target], theirs: Target, rounds: int) -> list[Figures]:
    """Each load on each target, in turn (A B A B), after one of each as a warm-up."""
    wanted = [cell for cell in cells(quick=False) if cell.connections in REQUESTS.get(cell.kind, {})]
    figures = {(cell.label, t.name): Figures(cell, t.name) for cell in wanted for t in (*targets, theirs)}
    for n in range(rounds + 1):
        for cell in wanted:
            print(f"round {n}: {cell.label}" if n else f"warming up: {cell.label}", file=sys.stderr)
            for target in (*targets, theirs):
                requests = REQUESTS[cell.kind][cell.connections] if target is theirs else cell.load.requests
                load = replace(cell.load, requests=requests if n else cell.connections)
                result = target.measure(load)
                if n:
                    figures[cell.label, target.name].rounds.append(result)
    return list(figures.values())


@contextlib.contextmanager
def upstream(python: Path) -> Iterator[Target]:
    """An Xinference of that environment with the dummy model launched, for the block."""
    query = [str(python), "-c", "import importlib.metadata; print(importlib.metadata.version('xinference'))"]
    version = subprocess.run(query, cwd="/", capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as home:
        weights = Path(home, "costless.gguf")
        weights.touch()
        port = _free_port()
        env = os.environ | {"HOME": home, "TMPDIR": home, "XINFERENCE_HOME": home, "PYTHONPATH": str(STAND_IN)}
        env |= {"XINFERENCE_AUTH_ADVANCED": "0", "XINFERENCE_ENABLE_VIRTUAL_ENV": "0"}
        command = [python, python.with_name("xinference-local"), "--host", "127.0.0.1", "--port", str(port)]
        quiet = subprocess.DEVNULL
        server = psutil.Popen(command, cwd=home, env=env, stdout=quiet, stderr=quiet)
        try:
            _answer(f"http://127.0.0.1:{port}/v1/models", {**LAUNCH, "model_path": str(weights)})
            parts = {f"server's {n}": child.pid for n, child in enumerate(server.children(recursive=True))}
            yield Target(f"Xinference {version}", port, {"server": server.pid, **parts})
        finally:
            _end(server)


def _end(server: psutil.Popen) -> None:
    """End it and its children: otherwise its models outlive it."""
    processes = [*server.children(recursive=True), server]
    server.terminate()
    _, left = psutil.wait_procs(processes, timeout=20)
    for process in left:
        process.kill()
    psutil.wait_procs(left)


def _answer(url: str, body: dict[str, str]) -> None:
    """Post `body` as soon as the port is open, and wait for the answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(request, timeout=START_SECONDS).close()
            return
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{url} refused the launch: {error.read().decode()}") from error
        except urllib.error.URLError as error:
            if time.monotonic() > end:
                raise SystemExit(f"{url} did not answer within {START_SECONDS:.0f} s") from error
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
