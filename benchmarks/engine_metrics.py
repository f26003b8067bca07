"""What llama.cpp's own metrics cost: processor time of the same answers without them, with them, and with readers.

    python -m benchmarks.engine_metrics --model tiny.gguf

They take turns in each round, on an engine of their own each, so that a busy machine slows all of them. The figure is
the processor time of the engine's process for a round of answers, as a multiple of that without metrics. A second
engine without metrics shows how far two engines that do the same differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.support.end_signals import end_as_ctrl_c
from tests.support.ports import free_port

from xinference.engines.llama_cpp.engine import PROGRAM

#: Times a second that the metrics are read in the third case; Prometheus reads them once in 15 s.
READS_PER_SECOND = 1.0
ANSWERS, TOKENS = 20, 200


@dataclass(frozen=True)
class Engine:
    """A running llama.cpp."""

    port: int
    process: psutil.Process

    def ask(self, path: str, body: dict[str, object] | None = None) -> bytes:
        """The answer to one request."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return bytes(answer.read())

    def answer(self) -> None:
        """One completion of a fixed length."""
        self.ask("/v1/completions", {"prompt": "a", "max_tokens": TOKENS, "ignore_eos": True, "cache_prompt": False})

    @property
    def cpu_seconds(self) -> float:
        """Processor time until now."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def running(model: Path, *, metrics: bool) -> Iterator[Engine]:
    """An engine with or without its metrics."""
    params = {
        "model_alias": "m",
        "model_path": str(model),
        "n_parallel": 1,
        "n_ctx": 1024,
        "cpuparams.n_threads": 1,
        "cpuparams_batch.n_threads": 1,
        "ui": False,
        "endpoint_metrics": metrics,
    }
    port = free_port()
    env = os.environ | {"XINFERENCE_LLAMA_PARAMS": json.dumps(params), "XINFERENCE_ENGINE_KEY": "key"}
    process = subprocess.Popen(
        [sys.executable, "-I", str(PROGRAM), "--port", str(port)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        engine = Engine(port, psutil.Process(process.pid))
        for _ in range(600):
            try:
                engine.ask("/health")
                break
            except OSError:
                time.sleep(0.1)
        yield engine
    finally:
        process.terminate()
        process.wait()


def spent(engine: Engine, reads_per_second: float = 0.0) -> float:
    """Processor time of the engine for `ANSWERS` answers."""
    done = threading.Event()

    def read() -> None:
        while not done.wait(1 / reads_per_second):
            engine.ask("/metrics")
            engine.ask("/slots")

    reader = threading.Thread(target=read) if reads_per_second else None
    before = engine.cpu_seconds
    if reader is not None:
        reader.start()
    for _ in range(ANSWERS):
        engine.answer()
    done.set()
    if reader is not None:
        reader.join()
    return engine.cpu_seconds - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    same: list[float] = []
    with_metrics: list[float] = []
    with_reader: list[float] = []
    seconds: list[float] = []
    with (
        running(arguments.model, metrics=False) as off,
        running(arguments.model, metrics=False) as other,
        running(arguments.model, metrics=True) as on,
        running(arguments.model, metrics=True) as read,
    ):
        for engine in (off, other, on, read):
            engine.answer()
        for _ in range(arguments.rounds):
            base = spent(off)
            seconds.append(base)
            same.append(spent(other) / base)
            with_metrics.append(spent(on) / base)
            with_reader.append(spent(read, READS_PER_SECOND) / base)
    print(f"without metrics: {statistics.median(seconds):.3f} s of processor time for {ANSWERS} x {TOKENS} tokens")
    print(f"a second engine without metrics: {statistics.median(same):.4f} of that")
    print(f"with metrics: {statistics.median(with_metrics):.4f} of that (median of {arguments.rounds} rounds)")
    print(f"with metrics, read {READS_PER_SECOND:g} times a second: {statistics.median(with_reader):.4f}")


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
