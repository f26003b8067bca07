"""Tokens a second of the Transformers server with one and with several streams, compared with `transformers serve`.

    python benchmarks/transformers_batching.py --python ENV/bin/python --peer PEER/bin/transformers [--rounds 3]

ENV is our environment; PEER has transformers of the same version with its `serving` extra. Both serve one model in
float32 on the CPU: SmolLM2-135M's shape with random weights. They take turns (A B A B), each alone on the machine,
and both wait for threads without spinning, so that batching is compared and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.end_signals import end_as_ctrl_c
from tests.support.ports import free_port

from xinference.engines.transformers.engine import PROGRAM

TOKENIZER = Path(__file__).parent.parent / "tests" / "assets" / "tiny-llama2-chat-hf"
PROMPT = "Once there was a small llama who lived on a high green hill. Every morning"
KEY = "benchmark"
MAKE_MODEL = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
)
LlamaForCausalLM(config).to(getattr(torch, sys.argv[2])).save_pretrained(sys.argv[1])
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the Transformers environment")
    parser.add_argument("--peer", type=Path, help="the `transformers` command to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([arguments.python, "-c", MAKE_MODEL, folder, "float32"], check=True)
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            (Path(folder) / name).write_bytes((TOKENIZER / name).read_bytes())
        rates: dict[str, list[float]] = {}
        for _ in range(arguments.rounds):
            with ours(arguments.python, folder) as url:
                note(rates, "ours", url, arguments, folder)
            if arguments.peer:
                with peer(arguments.peer, folder) as url:
                    note(rates, "peer", url, arguments, folder)
    show(rates, arguments.streams)


def note(rates: dict[str, list[float]], name: str, url: str, arguments: argparse.Namespace, model: str) -> None:
    rate(url, model, 1, 4)  # warms up
    for streams in (1, arguments.streams):
        rates.setdefault(f"{name}, {streams}", []).append(rate(url, model, streams, arguments.tokens))


def rate(url: str, model: str, streams: int, tokens: int) -> float:
    """Generated tokens per second with this number of concurrent requests."""

    def ask(number: int) -> int:
        body = {"model": model, "prompt": f"{number} {PROMPT}", "max_tokens": tokens, "temperature": 0}
        generated: int = call(f"{url}/v1/completions", body)["usage"]["completion_tokens"]
        return generated

    began = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        generated = sum(pool.map(ask, range(streams)))
    return generated / (time.perf_counter() - began)


@contextmanager
def ours(python: Path, model: str) -> Iterator[str]:
    port = free_port()
    params = {"uid": model, "model_path": model, "context_length": 2048, "threads": os.cpu_count()}
    env = {"XINFERENCE_TRANSFORMERS_PARAMS": json.dumps(params), "XINFERENCE_ENGINE_KEY": KEY}
    with running([str(python), "-I", str(PROGRAM), "--port", str(port)], env, port) as url:
        yield url


@contextmanager
def peer(program: Path, model: str) -> Iterator[str]:
    port = free_port()
    words = [str(program), "serve", model, "--continuous-batching", "--port", str(port), "--device", "cpu"]
    with running([*words, "--dtype", "float32"], {"HF_HUB_OFFLINE": "1"}, port) as url:
        yield url


@contextmanager
def running(words: list[str], env: dict[str, str], port: int) -> Iterator[str]:
    with running_process(words, env, port) as (url, _):
        yield url


@contextmanager
def running_process(words: list[str], env: dict[str, str], port: int) -> Iterator[tuple[str, int]]:
    """A server's URL and its process id."""
    whole = os.environ | {"OMP_WAIT_POLICY": "passive"} | env
    process = subprocess.Popen(words, env=whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/health", process)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            call(url)
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise SystemExit(f"{process.args!r} ended with {process.returncode}")


def call(url: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=600) as answer:
        return json.load(answer)


def show(rates: dict[str, list[float]], streams: int) -> None:
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:10} {middle[name]:7.1f} tok/s  ({', '.join(f'{value:.1f}' for value in values)})")
    print(f"{streams} streams / 1: {middle[f'ours, {streams}'] / middle['ours, 1']:.2f}")
    if "peer, 1" in middle:
        print(f"ours / peer at {streams}: {middle[f'ours, {streams}'] / middle[f'peer, {streams}']:.2f}")
        print(f"ours / peer at 1: {middle['ours, 1'] / middle['peer, 1']:.2f}")


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
