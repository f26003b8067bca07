"""Benchmark of the replica choice: cached prompt prefixes with prefix affinity, compared with round robin.

    python benchmarks/affinity.py                          simulated caches, four replicas
    python benchmarks/affinity.py --model FILE.gguf        four real llama.cpp servers too, A B A B

Real servers report the counts: `timings.cache_n` are the prompt's cached tokens, `prompt_n` the computed ones.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from tests.support.end_signals import end_as_ctrl_c
from tests.support.ports import free_port

from benchmarks.shared_prefixes import KnownCaches, RoundRobin, Traffic, body_of, client, simulate, working_set
from xinference.engines.llama_cpp.engine import PROGRAM
from xinference.gateway.balancer import Balancer
from xinference.routing.table import Target

KEY = "bench"
SIMULATED = {
    "40 conversations, a system prompt each": (Traffic(systems=40), None),
    "40 conversations, 10 system prompts": (Traffic(), None),
    "40 conversations, 1 system prompt": (Traffic(systems=1), None),
    "400 questions to 40 documents, 16 at once": (
        Traffic(conversations=400, systems=40, turns=2, rounds=1, system_bytes=8000, user_bytes=200),
        16,
    ),
}
#: Small enough for a minute on two cores: 16 conversations for 16 slots.
REAL = Traffic(conversations=16, systems=16, turns=6, rounds=1, system_bytes=1200, user_bytes=120, answer_bytes=200)
SLOTS = 4


@dataclass
class Count:
    """Tokens of prompts, and requests by replica."""

    cached: int
    computed: int
    requests: list[int]
    seconds: float

    @property
    def max_over_mean(self) -> float:
        return max(self.requests) * len(self.requests) / sum(self.requests)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, help="a small chat model, such as SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, object] = {"simulated": show_simulated(), "choice_us": show_cost()}
    if arguments.model:
        with engines(arguments.model.absolute(), 4) as targets:
            figures["real"] = asyncio.run(show_real(targets, arguments.rounds))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


def show_simulated() -> list[dict[str, object]]:
    """Simulated caches of three tenths of what all conversations need; medians of five seeds."""
    columns = f"{'found: ours':>12}{'by caches':>11}{'in turn':>9}{'ratio':>7}{'max / mean load':>18}"
    print(f"{'simulated (medians of 5)':44}{columns}")
    rows = []
    for name, (traffic, at_once) in SIMULATED.items():
        held = traffic if at_once is None else Traffic(**{**vars(traffic), "conversations": traffic.systems})
        capacity = working_set(held) * 3 // 10
        runs = [
            tuple(
                simulate(picker, traffic, capacity=capacity, at_once=at_once, seed=seed)
                for picker in (Balancer(), RoundRobin(), KnownCaches())
            )
            for seed in range(1, 6)
        ]
        ours, turns, exact = (statistics.median(run[side].hit_share for run in runs) for side in (0, 1, 2))
        ratio = statistics.median(run[0].hits / run[1].hits for run in runs)
        most = max(run[0].max_over_mean for run in runs)
        print(f"{name:44}{ours:>12.1%}{exact:>11.1%}{turns:>9.0%}{ratio:>7.2f}{most:>18.2f}")
        rows.append({"traffic": name, "ours": ours, "by_caches": exact, "round_robin": turns, "ratio": ratio,
            "max_over_mean": most})  # fmt: skip
    return rows


def show_cost() -> dict[str, float]:
    """Microseconds of one choice among four replicas, by the size of the body."""
    targets = tuple(Target(f"r{n}", f"http://127.0.0.1:{n}", KEY) for n in range(4))
    costs = {}
    for size in (500, 4000, 32000):
        bodies = [body_of([{"role": "user", "content": f"{n} " + "word " * (size // 5)}]) for n in range(50)]
        picker = Balancer()
        best = min(_seconds(picker, targets, bodies) for _ in range(20)) / len(bodies)
        costs[f"{len(bodies[0])} bytes"] = round(best * 1e6, 1)
    print(f"\none choice: {', '.join(f'{us} µs at {size}' for size, us in costs.items())}")
    return costs


def _seconds(picker: Balancer, targets: tuple[Target, ...], bodies: Sequence[bytes]) -> float:
    started = time.perf_counter()
    for body in bodies:
        picker.choose(targets, (), body, "messages")
    return time.perf_counter() - started


async def show_real(targets: tuple[Target, ...], rounds: int) -> dict[str, object]:
    """The same conversations with real engines; each run has different texts, so that no cache helps the next run."""
    runs: dict[str, list[Count]] = {"ours": [], "in turn": []}
    async with aiohttp.ClientSession() as http:
        for number in range(rounds):
            for name, picker in (("ours", Balancer()), ("in turn", RoundRobin())):
                runs[name].append(await _run(http, picker, targets, seed=number * 2 + (name == "ours")))
    print(
        f"\
{'llama.cpp, 4 replicas of 4 slots':44}{'cached':>9}{'computed':>9}{'seconds':>9}{'max / mean':>13}"
    )
    for name, counts in runs.items():
        for count in counts:
            print(f"{name:44}{count.cached:>9}{count.computed:>9}{count.seconds:>9.1f}{count.max_over_mean:>13.2f}")
    ratio = sum(c.cached for c in runs["ours"]) / sum(c.cached for c in runs["in turn"])
    print(f"ratio of cached tokens: {ratio:.2f}")
    return {"ratio": ratio, **{name: [vars(count) for count in counts] for name, counts in runs.items()}}


async def _run(http: aiohttp.ClientSession, picker: Balancer, targets: tuple[Target, ...], seed: int) -> Count:
    count = Count(0, 0, [0] * len(targets), 0.0)
    started = time.perf_counter()

    async def converse(number: int) -> None:
        random_ = random.Random(number)
        for messages in client(REAL, number, seed):
            body = json.loads(body_of(messages)) | {"stream": False, "max_tokens": 4, "temperature": 0}
            raw = json.dumps(body).encode()
            target = picker.choose(targets, (), raw, "messages")
            assert target is not None
            picker.begin(target)
            count.requests[targets.index(target)] += 1
            headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            async with http.post(f"{target.base_url}/v1/chat/completions", data=raw, headers=headers) as answer:
                timings = (await answer.json())["timings"]
            picker.end(target)
            count.cached += timings["cache_n"]
            count.computed += timings["prompt_n"]
            await asyncio.sleep(random_.random() / 10)

    await asyncio.gather(*(converse(number) for number in range(REAL.conversations)))
    count.seconds = time.perf_counter() - started
    return count


@contextlib.contextmanager
def engines(model: Path, count: int) -> Iterator[tuple[Target, ...]]:
    """Bare llama.cpp servers; their slots are their only cache."""
    from benchmarks.startup import wait_for

    processes, targets = [], []
    for number in range(count):
        port = free_port()
        params = {"model_alias": "m", "model_path": str(model), "n_ctx": 2048 * SLOTS, "n_parallel": SLOTS}
        params |= {"cache_ram_mib": 0, "cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}
        env = os.environ | {"XINFERENCE_LLAMA_PARAMS": json.dumps(params), "XINFERENCE_ENGINE_KEY": KEY}
        command = [sys.executable, "-I", str(PROGRAM), "--port", str(port)]
        processes.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        targets.append(Target(f"r{number}", f"http://127.0.0.1:{port}", KEY))
    try:
        for target in targets:
            wait_for(f"{target.base_url}/health")
        yield tuple(targets)
    finally:
        for process in processes:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
