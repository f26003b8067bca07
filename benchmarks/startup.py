"""Startup costs: --help, a ready server, a launched model, memory, disk.

    python benchmarks/startup.py --model FILE.gguf [--rounds 5]

The launch is compared with the bare engine: the same llama.cpp server program, with the same parameters,
started by hand and polled for its health; the two alternate (A B A B).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.support.end_signals import end_as_ctrl_c
from tests.support.ports import free_port

from xinference.engines.llama_cpp.engine import PROGRAM

ROOT = Path(__file__).parent.parent
UID = "smollm2-instruct"
CONTEXT = 8191
#: Pause before each start: a virtual machine returns free memory to its host meanwhile, so that neither side of the
#: comparison gets the pages that the other has just warmed.
PAUSE_SECONDS = 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="startup-"))
    try:
        figures = measure(home, arguments.model.absolute(), arguments.rounds)
    finally:
        shutil.rmtree(home)
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


def measure(home: Path, model: Path, rounds: int) -> dict[str, float]:
    env = os.environ | {"XINFERENCE_HOME": str(home), "XINFERENCE_PORT": str(free_port())}
    # An installed package has its bytecode; without it a third of the start is the compiler's.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    url = f"http://127.0.0.1:{env['XINFERENCE_PORT']}"
    help_seconds = [timed(lambda: run_help(env)) for _ in range(rounds)]
    server_seconds, idle = [], 0.0
    launches, bares = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        server = subprocess.Popen([sys.executable, "-m", "xinference.server"], env=env, stderr=subprocess.DEVNULL)
        wait_for(f"{url}/health")
        server_seconds.append(time.perf_counter() - started)
        time.sleep(PAUSE_SECONDS)
        idle = max(idle, resident_mib(server.pid))
        launches.append(timed(lambda: launch(url, model)))
        call(f"{url}/v1/models/{UID}", "DELETE")
        time.sleep(PAUSE_SECONDS)
        bares.append(bare_start(model))
        server.terminate()
        server.wait()
    return {
        "help_s": statistics.median(help_seconds),
        "server_ready_s": statistics.median(server_seconds),
        "server_idle_mib": idle,
        "launch_to_ready_s": statistics.median(launches),
        "bare_engine_start_s": statistics.median(bares),
        "launch_minus_bare_s": statistics.median(a - b for a, b in zip(launches, bares, strict=True)),
        "launch_over_bare": statistics.median(a / b for a, b in zip(launches, bares, strict=True)),
        "base_install_mb": base_install_mb(),
    }


def show(figures: dict[str, float]) -> None:
    rows = [
        ("xinference --help", f"{figures['help_s']:.2f} s", "0.3 s"),
        ("server ready", f"{figures['server_ready_s']:.2f} s", "2 s"),
        ("idle server, resident", f"{figures['server_idle_mib']:.0f} MiB", "120 MiB"),
        ("launch to ready, weights cached", f"{figures['launch_to_ready_s']:.2f} s", "bare + 1 s"),
        ("bare engine's own start", f"{figures['bare_engine_start_s']:.2f} s", ""),
        ("launch / bare", f"{figures['launch_over_bare']:.2f}", ""),
        ("launch - bare", f"{figures['launch_minus_bare_s']:+.2f} s", "1 s"),
        ("base install", f"{figures['base_install_mb']:.0f} MB", "300 MB"),
    ]
    print(f"{'what (medians)':34}{'measured':>12}{'at most':>14}")
    for name, value, bound in rows:
        print(f"{name:34}{value:>12}{bound:>14}")


def run_help(env: dict[str, str]) -> None:
    command = Path(sys.executable).with_name("xinference")
    subprocess.run([command, "--help"], env=env, check=True, stdout=subprocess.DEVNULL)


def launch(url: str, model: Path) -> None:
    call(f"{url}/v1/models", "POST", {"model_name": UID, "model_path": str(model)})


def bare_start(model: Path) -> float:
    """Seconds from the start of the engine's program, with the parameters of our launch, to its health."""
    port = free_port()
    params = {
        "model_alias": UID,
        "model_path": str(model),
        "n_ctx": 0,
        "n_parallel": 4,
        "kv_unified": True,
        "kv_unified_per_slot": CONTEXT + 1,
    }
    env = os.environ | {
        "XINFERENCE_LLAMA_PARAMS": json.dumps(params),
        "XINFERENCE_ENGINE_KEY": "bench",
    }
    started = time.perf_counter()
    command = [sys.executable, "-I", str(PROGRAM), "--port", str(port)]
    engine = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(f"http://127.0.0.1:{port}/health")
    seconds = time.perf_counter() - started
    engine.terminate()
    engine.wait()
    return seconds


def base_install_mb() -> float:
    """Bytes of every file of the distributions that requirements.lock pins for this platform."""
    names = re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    total = 0
    for name in names:
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # pinned for another platform
        total += sum(path.stat().st_size for f in files if (path := Path(str(f.locate()))).is_file())
    total += sum(f.stat().st_size for f in (ROOT / "src").rglob("*") if f.is_file())
    return total / 1e6


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def timed(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def wait_for(url: str, seconds: float = 60) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        try:
            call(url, "GET")
            return
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.01)
    raise SystemExit(f"{url} did not answer within {seconds} s")


def call(url: str, method: str, body: object = None, seconds: float = 60) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        content: bytes = answer.read()
        return content


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
