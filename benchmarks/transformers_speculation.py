"""Speculative decoding on the Transformers engine: tokens per second with and without drafts of prompt lookup.

    python -m benchmarks.speculation --engine transformers --python ENV/bin/python --model-path FOLDER
        [--at-once 1,4,8] [--rounds 3] [--tokens 64]

ENV is the Transformers environment, FOLDER has a model as safetensors. Engines with and without drafts, each with one
thread, answer the same prompts in turn; their order alternates. The seconds are those of the requests without their
prompts: requests for one token, which are measured directly before, are subtracted.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.support.ports import free_port

from benchmarks.shared_beginnings.servers import engine_clock
from benchmarks.transformers_batching import KEY, call, running_process
from xinference.engines.transformers.engine import PROGRAM

#: Method -> options of the launch.
METHODS: dict[str, dict[str, Any]] = {
    "without": {"prompt_lookup_num_tokens": 0},
    "without again": {"prompt_lookup_num_tokens": 0},
    "prompt lookup": {},
}


@dataclass(frozen=True)
class Run:
    """Some answers at once."""

    text: str
    tokens: int
    cpu: float
    """Seconds that all threads of the engine have computed for them."""
    wall: float
    drafted: int
    accepted: int


class Engine:
    """One running engine."""

    def __init__(self, url: str, pid: int) -> None:
        self._url, self._clock = url, engine_clock(pid)

    def answers(self, prompts: Sequence[str], tokens: int) -> Run:
        """Answers to these prompts at once."""
        first = self._timed(prompts, 1)
        whole = self._timed(prompts, tokens)
        return replace(
            whole, tokens=whole.tokens - first.tokens, cpu=whole.cpu - first.cpu, wall=whole.wall - first.wall
        )

    def _timed(self, prompts: Sequence[str], tokens: int) -> Run:
        def ask(prompt: str) -> Any:
            body = {"model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
            return call(f"{self._url}/v1/completions", body)

        drafted, accepted = self._counts()
        wall, cpu = perf_counter(), self._clock()
        with ThreadPoolExecutor(len(prompts)) as pool:
            answers = list(pool.map(ask, prompts))
        wall, cpu = perf_counter() - wall, self._clock() - cpu
        counts = self._counts()
        text = "\n".join(answer["choices"][0]["text"] for answer in answers)
        generated = sum(answer["usage"]["completion_tokens"] for answer in answers)
        return Run(text, generated, cpu, wall, counts[0] - drafted, counts[1] - accepted)

    def _counts(self) -> tuple[int, int]:
        request = urllib.request.Request(f"{self._url}/metrics", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            lines = dict(line.split() for line in answer.read().decode().splitlines() if line[:1] != "#")
        prefix = "xinference_transformers_spec_decode_num"
        return int(lines[f"{prefix}_draft_tokens_total"]), int(lines[f"{prefix}_accepted_tokens_total"])


def measure(
    python: Path,
    model: Path,
    prompts: Mapping[str, str],
    at_once: Sequence[int],
    rounds: int,
    tokens: int,
    methods: Sequence[str],
) -> dict[tuple[str, str], list[Run]]:
    """Prompt with the number of answers at once, and method -> its runs."""
    found: dict[tuple[str, str], list[Run]] = {}
    with ExitStack() as stack:
        engines = {method: stack.enter_context(_engine(python, model, METHODS[method])) for method in methods}
        for round_ in range(rounds):
            for number in at_once:
                for name, prompt in prompts.items():
                    texts = [f"No. {round_}.{each}.\n{prompt}" for each in range(number)]
                    order = list(engines) if round_ % 2 == 0 else list(reversed(engines))
                    for method in order:
                        run = engines[method].answers(texts, tokens)
                        found.setdefault((f"{name}, {number} at once", method), []).append(run)
                        print(f"{name}, {number} at once, {method}: {run.cpu:.2f} s CPU, {run.wall:.2f} s", flush=True)
    return found


@contextmanager
def _engine(python: Path, model: Path, options: Mapping[str, Any]) -> Iterator[Engine]:
    """A running engine with these options."""
    port = free_port()
    params = {"uid": "m", "model_path": str(model), "context_length": 2048, "threads": 1, "device": "cpu", **options}
    env = {"XINFERENCE_TRANSFORMERS_PARAMS": json.dumps(params), "XINFERENCE_ENGINE_KEY": KEY}
    with running_process([str(python), "-I", str(PROGRAM), "--port", str(port)], env, port) as (url, pid):
        yield Engine(url, pid)
