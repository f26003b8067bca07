"""The two servers that are compared: this one, and llama.cpp with its defaults, both with the model ``m``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

from benchmarks.shared_beginnings.client import Server
from xinference.catalog.registry import builtin_families
from xinference.engines.llama_cpp.engine import PROGRAM

SLOTS, CONTEXT = 8, 4096
#: Parameters with which each slot keeps its prompt while others compute.
SLOTS_APART = {"kv_unified": False, "cache_ram_mib": 0, "cache_idle_slots": False, "n_ctx": (CONTEXT + 256) * SLOTS}
#: libgomp's default, which llama.cpp has if it is not started by Xinference.
DEFAULT_SPINS = {"GOMP_SPINCOUNT": "300000"}
_KEY = "benchmark"


@contextmanager
def ours(
    weights: Path,
    home: Path,
    threads: int,
    *,
    by_engine: bool,
    shares: bool = True,
    source: Path | None = None,
    **fields: Any,
) -> Iterator[Server]:
    """This server with the model ``m``.

    Args:
        source: the source tree of the server; None: this one.
    """
    port = free_port()
    env = {key: value for key, value in os.environ.items() if not key.startswith("XINFERENCE_")}
    env |= {
        "XINFERENCE_HOME": str(home),
        "XINFERENCE_PORT": str(port),
        "XINFERENCE_SHARED_BEGINNINGS": str(shares).lower(),
    }
    if source is not None:
        env["PYTHONPATH"] = str(source.absolute() / "src")
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "xinference.server"], env=env, stdout=log, stderr=log)
    server = Server(f"http://127.0.0.1:{port}")
    try:
        wait_for(f"{server.url}/health", lambda data: True)
        server.post(
            "/v1/models",
            {
                "model_uid": "m",
                "model_name": "smollm2-instruct",
                "model_type": "LLM",
                "model_engine": "llama.cpp",
                "model_format": "ggufv2",
                "model_size_in_billions": "0_135",
                "quantization": "Q4_1",
                "model_path": str(weights),
                "n_parallel": SLOTS,
                "n_ctx": CONTEXT,
                "n_threads": threads,
                "n_threads_batch": threads,
                **fields,
            },
        )
        if fields.get("on_demand"):
            server.post("/v1/models/m/load", {})
        yield replace(server, clock=engine_clock(engine_pid(server))) if by_engine else server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@contextmanager
def bare(weights: Path, threads: int, *, by_engine: bool, **further: Any) -> Iterator[Server]:
    """llama.cpp with the parameters that a launch without saved states has, and with its own default of cached prompts.

    With less for these, it would compute long conversations of several agents again at each turn.
    """
    port = free_port()
    params = {
        "cpuparams.n_threads": threads,
        "cpuparams_batch.n_threads": threads,
        "cache_ram_mib": 8192,
        "n_threads_http": 64,
        "ui": False,
        "endpoint_metrics": True,
        "model_alias": "m",
        "model_path": str(weights),
        "n_ctx": 0,
        "n_parallel": SLOTS,
        "kv_unified": True,
        "kv_unified_per_slot": CONTEXT + 1,
        "n_gpu_layers": 0,
        # The file's own template leaves the tools out.
        "chat_template": builtin_families()["smollm2-instruct"].chat_template,
        **further,
    }
    own = {"XINFERENCE_LLAMA_PARAMS": json.dumps(params), "XINFERENCE_ENGINE_KEY": _KEY}
    env = {**os.environ, **DEFAULT_SPINS, **own}
    process = subprocess.Popen(
        [sys.executable, "-I", str(PROGRAM), "--port", str(port)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = Server(f"http://127.0.0.1:{port}", _KEY, engine_clock(process.pid) if by_engine else time.perf_counter)
    try:
        wait_for(f"{server.url}/health", lambda data: True)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def engine_pid(server: Server, uid: str = "m") -> int:
    """The process of a model's engine."""
    with urllib.request.urlopen(f"{server.url}/v1/models/instances?model_uid={uid}", timeout=60) as answer:
        pid: int = json.load(answer)[0]["replicas"][0]["engine_pid"]
        return pid


def engine_clock(pid: int) -> Callable[[], float]:
    """The seconds that all threads of a process have computed."""

    def read() -> float:
        nanoseconds = 0
        for each in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                nanoseconds += int((each / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    return read


def with_present_clock(server: Server) -> Server:
    """The server with the clock of its present engine, if it counted the seconds of an engine."""
    return server if server.clock is time.perf_counter else replace(server, clock=engine_clock(engine_pid(server)))


def wait_for(url: str, is_ready: Callable[[Any], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if is_ready(json.load(answer)):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"{url} is not ready")
