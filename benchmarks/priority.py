"""Time to the first token of a request with high priority while all slots of llama.cpp are in use and others wait.

    python -m benchmarks.priority --weights SmolLM2-135M-Instruct.Q4_1.gguf [--rounds 10] [--clients 12]

Clients keep asking with normal priority, three for each slot. The first request with high priority waits for one of the
running requests to end; the next ones find a reserved slot. What their first token takes more than on an idle engine is
compared with a step of the running requests, the time between two of their tokens. The normal requests of the same run
show the wait without priority.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

from tests.support.end_signals import end_as_ctrl_c

from benchmarks.shared_beginnings.client import Server, chat, text
from benchmarks.shared_beginnings.servers import ours

SLOTS = 4


class Load:
    """Clients that ask again and again, and the times of their answers."""

    def __init__(self, server: Server, clients: int, tokens: int) -> None:
        self.firsts: list[float] = []
        """Seconds until the first token of each answer."""
        self.tokens: list[list[float]] = []
        """When the tokens of each answer came, by `time.perf_counter`."""
        self._server, self._max_tokens = server, tokens
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
            body = chat(text((number, asked), 20), "Go on.", max_tokens=self._max_tokens, ignore_eos=True)
            began = time.perf_counter()
            self.tokens.append(self._server.token_times(body))
            self.firsts.append(self.tokens[-1][0] - began)


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
        while len(load.tokens) < arguments.clients:
            time.sleep(0.01)
        first = _high(server, "first")
        # The slots that end now are not given to others; then one is free.
        ended = len(load.tokens)
        while len(load.tokens) < ended + SLOTS:
            time.sleep(0.01)
        found = []
        for n in range(arguments.rounds):
            time.sleep(random.Random(n).uniform(0, 0.3))
            found.append((time.perf_counter(), _high(server, ("high", n))))
    finally:
        load.stop()
    steps = _steps(load.tokens, found[0][0], found[-1][0])
    met = statistics.mean(_step_at(load.tokens, began) for began, _ in found)
    highs = [seconds for _, seconds in found]
    more = statistics.mean(highs) - statistics.mean(idle)
    for name, seconds in (("idle engine", idle), ("high priority under load", highs), ("normal priority", load.firsts)):
        print(f"first token, {name}: median {statistics.median(seconds):.3f} s, mean {statistics.mean(seconds):.3f} s")
    print(f"the first request with high priority, which waited for a slot: {first:.3f} s")
    print(f"a step of the running requests: median {statistics.median(steps):.3f} s; as met by a request: {met:.3f} s")
    print(f"high - idle: {more:.3f} s, {more / met:.2f} of the step that a request met (means)")


def _high(server: Server, seed: object) -> float:
    return server.first_token(chat(text(seed, 20), "Say a word.", service_tier="priority"))


def _steps(answers: list[list[float]], began: float, ended: float) -> list[float]:
    """The seconds between two tokens of an answer, of all that came in this time."""
    pairs = (pair for times in answers for pair in pairwise(times))
    return [after - before for before, after in pairs if began <= before and after <= ended]


def _step_at(answers: list[list[float]], moment: float) -> float:
    """The seconds between two tokens of the answers that ran at this moment: of the one whose next token came first."""
    ends = [
        (after, after - before) for times in answers for before, after in pairwise(times) if before <= moment < after
    ]
    return min(ends)[1] if ends else 0.0


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
