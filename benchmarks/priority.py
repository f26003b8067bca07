"""Time to the first token of a request with high priority while all slots of llama.cpp are in use and others wait.

    python -m benchmarks.priority --weights SmolLM2-135M-Instruct.Q4_1.gguf [--rounds 10] [--clients 12]

Clients keep asking with normal priority, three for each slot. A request with high priority waits for the first of the
running requests to end, and no longer: its time is compared with the time until that end, and with that of an idle
engine. The normal requests of the same run show the wait without priority.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tests.support.end_signals import end_as_ctrl_c

from benchmarks.shared_beginnings.client import Server, chat, text
from benchmarks.shared_beginnings.servers import ours

SLOTS = 4


class Load:
    """Clients that ask again and again, and the times of their answers."""

    def __init__(self, server: Server, clients: int, tokens: int) -> None:
        self.firsts: list[float] = []
        self.ends: list[float] = []
        """When each answer ended, by `time.perf_counter`."""
        self._server, self._tokens = server, tokens
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        asked = 0
        while not self._stopping.is_set():
            asked += 1
            body = chat(text((number, asked), 20), "Go on.", max_tokens=self._tokens, ignore_eos=True)
            self.firsts.append(self._server.first_token(body))
            self.ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=3 * SLOTS)
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each answer")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    weights = arguments.weights.absolute()
    with (
        tempfile.TemporaryDirectory() as home,
        ours(weights, Path(home), arguments.threads, by_engine=False, n_parallel=SLOTS, n_ctx=1024) as server,
    ):
        compare(server, arguments)


def compare(server: Server, arguments: argparse.Namespace) -> None:
    """Print the medians."""
    server.first_token(chat("Be short.", "Hello."))
    idle = [_high(server, ("idle", n)) for n in range(arguments.rounds)]
    load = Load(server, arguments.clients, arguments.tokens)
    load.start()
    try:
        while len(load.ends) < arguments.clients:
            time.sleep(0.01)
        found = [_under_load(server, load, n) for n in range(arguments.rounds)]
    finally:
        load.stop()
    high, place = (statistics.median(values) for values in zip(*found, strict=True))
    alone, normal = statistics.median(idle), statistics.median(load.firsts)
    print(f"idle: {alone:.2f} s; normal under load: {normal:.2f} s; high under load: {high:.2f} s")
    print(f"until the next running request ended: {place:.2f} s")
    print(f"high / (that + idle): {high / (place + alone):.2f}; high / normal: {high / normal:.2f}")


def _high(server: Server, seed: object) -> float:
    return server.first_token(chat(text(seed, 20), "Say a word.", service_tier="priority"))


def _under_load(server: Server, load: Load, number: int) -> tuple[float, float]:
    """Seconds to the first token, and seconds to the first end of another request."""
    began, ended = time.perf_counter(), len(load.ends)
    first = _high(server, ("high", number))
    while len(load.ends) == ended:
        time.sleep(0.01)
    return first, load.ends[ended] - began


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
