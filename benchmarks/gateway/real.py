"""A small real model: requests directly to its own llama.cpp server, and to the same process through the gateway.

python -m benchmarks.gateway.real --model SmolLM2-135M-Instruct.Q4_1.gguf [--rounds 25] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
from tests.support.end_signals import end_as_ctrl_c

from benchmarks.gateway.__main__ import measure
from benchmarks.gateway.cells import Cell, Figures
from benchmarks.gateway.load import Load
from benchmarks.gateway.report import table, write_json
from benchmarks.gateway.targets import Target

UID = "smollm2-instruct"
ENGINE, OURS = "llama.cpp alone", "xinference"
#: Number of streams -> tokens of each. A second or two of work: the load of the host changes slowly, so two
#: consecutive short runs are more alike than two long ones, and many pairs give a better median than a few.
TOKENS = {1: 128, 4: 48, 8: 32, 16: 24}
#: Maximum share of a core that the host may take: above it, a run measures other machines.
STOLEN = 0.02
#: Slots of the engine: no stream waits for the end of another one.
SLOTS = 16
FIRST_REQUESTS = 20
#: Pause between requests whose first token is measured: llama.cpp closes after each stream, which the pause covers.
REST_SECONDS = 0.05
#: Every token is a step of the engine, because no stream ends early.
SIZE = {"n_parallel": SLOTS, "n_ctx": 2048}
FIELDS: dict[str, object] = {"temperature": 0, "ignore_eos": True}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.real", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--streams", type=int, choices=TOKENS, help="only this number of streams")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    first = Cell("first", 1, replace(_load(1, FIRST_REQUESTS, 4), pause=REST_SECONDS))
    rates = [Cell("stream", n, _load(n, n, tokens)) for n, tokens in TOKENS.items() if arguments.streams in (None, n)]
    with served(arguments.model.absolute()) as targets:
        for target in targets:
            target.measure(_load(1, 2, 16))
        figures = measure(targets, [first, *rates], arguments.rounds)
    print(table(figures))
    alone, ours = (next(f for f in figures if f.target == name) for name in (ENGINE, OURS))
    added = [(o.first_p50 - a.first_p50) * 1000 for a, o in zip(alone.rounds, ours.rounds, strict=True)]
    print(f"time to first token, added at 1 stream, ms: {_medians(added, _undisturbed(alone, ours))}")
    for a, o in _pairs(figures):
        ratios = [y / x for x, y in zip(a.rate, o.rate, strict=True)]
        text = _medians(ratios, _undisturbed(a, o))
        print(f"tokens per second at {a.cell.connections} streams, of the engine alone: {text}")
    if arguments.json:
        write_json(arguments.json, figures, {})
    return 1 if any(f.errors for f in figures) else 0


def _load(streams: int, requests: int, tokens: int) -> Load:
    return Load(0, streams, requests, tokens=tokens, model=UID, exact=False, extra=FIELDS)


def _pairs(figures: list[Figures]) -> Iterator[tuple[Figures, Figures]]:
    for a in figures:
        if a.target == ENGINE and a.cell.kind == "stream":
            yield a, next(f for f in figures if f.target == OURS and f.cell == a.cell)


def _undisturbed(a: Figures, o: Figures) -> list[bool]:
    """For each pair, whether the host left this machine its cores in both runs."""
    return [all(r.stolen <= STOLEN * r.seconds for r in pair) for pair in zip(a.rounds, o.rounds, strict=True)]


def _medians(of: list[float], undisturbed: list[bool]) -> str:
    clean = [value for value, whole in zip(of, undisturbed, strict=True) if whole]
    text = f"{statistics.median(of):.3f} of {len(of)} pairs"
    return text + (f", {statistics.median(clean):.3f} of the {len(clean)} undisturbed ones" if clean else "")


@contextlib.contextmanager
def served(model: Path) -> Iterator[list[Target]]:
    """The engine of a launch and the server that launched it, for the block."""
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        env = os.environ | {"XINFERENCE_HOME": home}
        command = [sys.executable, "-m", "xinference.server", "--port", "0"]
        server = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        try:
            url = _endpoint(Path(home))
            _call(f"{url}/v1/models", {"model_name": UID, "model_uid": UID, "model_path": str(model), **SIZE})
            engine = psutil.Process(_call(f"{url}/v1/models/instances")[0]["replicas"][0]["engine_pid"])
            port = next(c.laddr.port for c in engine.net_connections("inet") if c.status == psutil.CONN_LISTEN)
            key = engine.environ()["XINFERENCE_ENGINE_KEY"]
            own_port = int(url.rpartition(":")[2])
            yield [
                Target(ENGINE, port, {"engine": engine.pid}, key),
                Target(OURS, own_port, {"server": server.pid, "engine": engine.pid}),
            ]
            _call(f"{url}/v1/models/{UID}", method="DELETE")
        finally:
            server.send_signal(2)  # ends the engines too
            server.wait()


def _endpoint(home: Path) -> str:
    """The server's URL, once it answers."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            url: str = json.loads((home / "server.json").read_text())["endpoint"]
            _call(f"{url}/health")
            return url
        time.sleep(0.05)
    raise SystemExit("the server did not answer within 60 s")


def _call(url: str, body: object = None, method: str | None = None) -> list[dict[str, list[dict[str, int]]]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        answer_json: list[dict[str, list[dict[str, int]]]] = json.load(answer)
        return answer_json


if __name__ == "__main__":
    end_as_ctrl_c()
    sys.exit(main())
