"""Tokens per second of llama.cpp while other programs, or another model, use the same processors.

    python -m benchmarks.busy_processors --weights SmolLM2-135M-Instruct.Q4_1.gguf [--rounds 5] [--tokens 40]

Each model runs twice: as Xinference starts it, and with libgomp's default for the time that a thread spins while it
waits for the others, which llama.cpp has otherwise. Both have as many threads as the machine has cores. They are asked
in turn: alone, beside programs that never wait (one, and one for each core), and together with a second model that
answers at the same time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import psutil
from tests.support.end_signals import end_as_ctrl_c
from tests.support.home import Home
from tests.support.ports import free_port

from benchmarks.shared_beginnings.servers import DEFAULT_SPINS

#: How the two are started: their names and environment variables.
STARTS: dict[str, dict[str, str]] = {"xinference": {}, "default": DEFAULT_SPINS}


def main() -> int:
    end_as_ctrl_c()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file of SmolLM2-135M-Instruct")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40, help="the length of each answer")
    arguments = parser.parse_args()
    cores = psutil.cpu_count(logical=False) or 1
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), arguments.weights, cores) as home:
        ask = partial(tokens_per_second, home, arguments.tokens)
        for title, programs in {"alone": 0, "beside 1 program": 1, f"beside {cores} programs": cores}.items():
            with busy(programs):
                report(title, [{start: ask(f"{start}-1") for start in shuffled()} for _ in range(arguments.rounds)])
        both = [{start: at_once(ask, start) for start in shuffled()} for _ in range(arguments.rounds)]
        report("each of 2 models at once", both)
    return 0


@contextmanager
def running(folder: Path, weights: Path, threads: int) -> Iterator[Home]:
    """A server with two models of each start."""
    home = Home(folder, free_port())
    server = home.serve()
    try:
        for start, variables in STARTS.items():
            for number in (1, 2):
                fields: dict[str, Any] = {"model_name": "smollm2-instruct", "quantization": "Q4_1", "envs": variables}
                fields |= {"model_path": str(weights), "n_ctx": 2048, "n_parallel": 1, "n_threads": threads}
                answer = home.launch(**fields, model_uid=f"{start}-{number}")
                answer.raise_for_status()
        yield home
    finally:
        home.cli("stop")
        server.wait(60)


def shuffled() -> list[str]:
    return random.sample(list(STARTS), len(STARTS))


def tokens_per_second(home: Home, tokens: int, uid: str) -> float:
    """The speed of one answer without its prompt, by the engine's own figures."""
    body = {"model": uid, "prompt": f"{time.time()}: ", "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    answer = httpx2.post(f"{home.url}/v1/completions", json=body, timeout=600)
    answer.raise_for_status()
    speed: float = answer.json()["timings"]["predicted_per_second"]
    return speed


def at_once(ask: partial[float], start: str) -> float:
    """The speed of each of two models that answer at the same time."""
    with ThreadPoolExecutor(2) as pool:
        return statistics.mean(pool.map(ask, (f"{start}-1", f"{start}-2")))


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Programs that compute without a pause."""
    with ExitStack() as stack:
        for _ in range(programs):
            stack.callback(subprocess.Popen([sys.executable, "-c", "while True: pass"]).kill)
        yield


def report(title: str, measured: list[dict[str, float]]) -> None:
    """One line: the medians of tokens per second, and the median of the ratios."""
    medians = [f"{start} {statistics.median(each[start] for each in measured):6.1f}" for start in STARTS]
    first, second = STARTS
    ratio = statistics.median(each[first] / each[second] for each in measured)
    print(f"{title:26} {'   '.join(medians)}   ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
