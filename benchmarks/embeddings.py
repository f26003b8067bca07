"""CPU time and texts a second of the Transformers server's embeddings, compared with sentence-transformers itself.

    python benchmarks/embeddings.py --python ENV/bin/python --model FOLDER --peer-packages FOLDER [--rounds 5]

ENV is the Transformers environment; FOLDER has the model's files. The peer is sentence-transformers in a process of its
own, with the same torch, transformers and number of threads; `--peer-packages` is a folder into which `pip install
--target FOLDER --no-deps sentence-transformers scikit-learn scipy joblib threadpoolctl cloudpickle loky narwhals` has
installed it. Both compute in float32. The time of the server includes HTTP; the peer is called in its process. They
take turns, request by request, and change their order: while one computes, the other one waits. The CPU time
is that of the whole process, so it does not change with what else the machine does; the wall time does.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.end_signals import end_as_ctrl_c
from tests.support.ports import free_port

from benchmarks.transformers_batching import KEY, call, running_process
from xinference.engines.transformers.engine import PROGRAM

PEER = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(int(sys.argv[3]))
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[2], device="cpu")
for line in sys.stdin:
    texts = json.loads(line)
    began = time.perf_counter()
    vectors = model.encode(texts, normalize_embeddings=True)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "first": vectors[0].tolist()}), flush=True)
"""
SENTENCE = "the llama lives on a high green hill and eats grass every morning before the sun rises over the valley"
#: Name -> words of a text, from and to.
LENGTHS = {
    "10 to 60 words": (10, 60),
    "12 words": (12, 12),
    "150 words": (150, 150),
}
TEXTS = 32


@dataclass(frozen=True)
class Encoder:
    """One of the two: `encode` returns the wall time of a request and its first vector."""

    encode: Callable[[Sequence[str]], tuple[float, list[float]]]
    pid: int

    def measured(self, texts: Sequence[str]) -> tuple[float, float]:
        """Wall time and CPU time of a request, in seconds."""
        began = cpu_seconds(self.pid)
        wall, _ = self.encode(texts)
        return wall, cpu_seconds(self.pid) - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the Transformers environment")
    parser.add_argument("--model", type=Path, required=True, help="folder of the embedding model")
    parser.add_argument("--peer-packages", type=Path, required=True, help="folder with sentence-transformers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=5, help="requests of one turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    with ours(arguments) as own, peer(arguments) as other:
        for name, (fewest, most) in LENGTHS.items():
            compare(name, make_requests(arguments.requests, fewest, most), own, other, arguments.rounds)


def compare(name: str, requests: list[list[str]], own: Encoder, other: Encoder, rounds: int) -> None:
    """Print the ratios of both, over all requests and round by round."""
    pair = (own.encode(requests[0])[1], other.encode(requests[0])[1])
    difference = max(abs(a - b) for a, b in zip(*pair, strict=True))
    turns: dict[str, list[list[tuple[float, float]]]] = {"ours": [], "peer": []}
    for round_ in range(rounds):
        for values in turns.values():
            values.append([])
        for number, texts in enumerate(requests):
            order = (("ours", own), ("peer", other))
            for who, encoder in order if (round_ + number) % 2 else reversed(order):
                turns[who][-1].append(encoder.measured(texts))
    print(f"{TEXTS} texts of {name}; largest difference of a number {difference:.1e}")
    for kind, column in (("wall", 0), ("CPU", 1)):
        sums = {who: [sum(each[column] for each in turn) / len(turn) for turn in all_] for who, all_ in turns.items()}
        ratios = [theirs / mine for mine, theirs in zip(sums["ours"], sums["peer"], strict=True)]
        mine, theirs = statistics.median(sums["ours"]), statistics.median(sums["peer"])
        print(
            f"  {kind:<4} ms a request: ours {mine * 1e3:.1f}, sentence-transformers {theirs * 1e3:.1f}; ratio "
            f"{statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
            flush=True,
        )


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads: the nanoseconds that the scheduler counts for each."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def make_requests(count: int, fewest: int, most: int) -> list[list[str]]:
    chance, words = random.Random(0), SENTENCE.split()

    def text() -> str:
        return " ".join(chance.choices(words, k=chance.randint(fewest, most)))

    return [[text() for _ in range(TEXTS)] for _ in range(count)]


@contextmanager
def ours(arguments: argparse.Namespace) -> Iterator[Encoder]:
    port = free_port()
    params = {"uid": "m", "model_type": "embedding", "model_path": str(arguments.model), "threads": arguments.threads}
    env = {"XINFERENCE_TRANSFORMERS_PARAMS": json.dumps(params), "XINFERENCE_ENGINE_KEY": KEY}
    with running_process([str(arguments.python), "-I", str(PROGRAM), "--port", str(port)], env, port) as (url, pid):

        def encode(texts: Sequence[str]) -> tuple[float, list[float]]:
            began = time.perf_counter()
            # The form that OpenAI's client asks for.
            body = {"model": "m", "input": list(texts), "encoding_format": "base64"}
            vectors = [base64.b64decode(item["embedding"]) for item in call(f"{url}/v1/embeddings", body)["data"]]
            return time.perf_counter() - began, list(struct.unpack(f"<{len(vectors[0]) // 4}f", vectors[0]))

        yield Encoder(encode, pid)


@contextmanager
def peer(arguments: argparse.Namespace) -> Iterator[Encoder]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peer.py"
        program.write_text(PEER, encoding="utf-8")
        words = [arguments.python, program, arguments.peer_packages, arguments.model, str(arguments.threads)]
        env = os.environ | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        process = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def encode(texts: Sequence[str]) -> tuple[float, list[float]]:
            stdin.write(json.dumps(list(texts)) + "\n")
            stdin.flush()
            answer = json.loads(stdout.readline())
            return answer["seconds"], answer["first"]

        try:
            yield Encoder(encode, process.pid)
        finally:
            stdin.close()
            process.wait(30)


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
