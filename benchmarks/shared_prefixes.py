"""Simulated traffic with common prompt prefixes, and the result of a replica choice, without an engine.

Each replica caches the blocks of its computed prompts, as vLLM does: 64 bytes of the prompt each, identified together
with all preceding blocks; the least recently used one is evicted first.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections import OrderedDict, deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from xinference.gateway.balancer import Balancer
from xinference.gateway.prefix_affinity import COMMON_ENDS, PrefixRecord
from xinference.routing.table import Target

BLOCK = 64
WORDS = ("river", "stone", "lamp", "north", "seven", "quiet", "glass", "orbit", "paper", "winter", "signal", "amber")


@dataclass(frozen=True)
class Traffic:
    """Concurrent conversations; sizes in bytes of text."""

    conversations: int = 40
    systems: int = 10
    """Number of different system prompts, assigned to the conversations in turn."""
    turns: int = 8
    system_bytes: int = 3000
    user_bytes: int = 300
    answer_bytes: int = 500
    rounds: int = 3
    """Number of new conversations that each client begins."""


def text(random_: random.Random, size: int) -> str:
    """Random words."""
    return " ".join(random_.choices(WORDS, k=size // 6))


def client(traffic: Traffic, number: int, seed: int) -> Iterator[list[dict[str, str]]]:
    """The messages of each of a client's requests, in order."""
    return iter(_requests(traffic, number, seed))


@lru_cache(maxsize=256)
def _requests(traffic: Traffic, number: int, seed: int) -> tuple[list[dict[str, str]], ...]:
    """The same for each replica choice that is compared: making the texts takes most of a simulation's time."""
    return tuple(_make_requests(traffic, number, seed))


def _make_requests(traffic: Traffic, number: int, seed: int) -> Iterator[list[dict[str, str]]]:
    random_ = random.Random(f"{seed}-{number}")
    system = text(random.Random(f"system-{seed}-{number % traffic.systems}"), traffic.system_bytes)
    for _ in range(traffic.rounds):
        messages = [{"role": "system", "content": system}]
        for _ in range(random_.randint(traffic.turns // 2, traffic.turns)):
            messages.append({"role": "user", "content": text(random_, traffic.user_bytes)})
            yield list(messages)
            messages.append({"role": "assistant", "content": text(random_, traffic.answer_bytes)})


def body_of(messages: Sequence[dict[str, str]]) -> bytes:
    """The body that OpenAI's client sends."""
    return json.dumps({"messages": messages, "model": "m", "stream": True}, separators=(",", ":")).encode()


@dataclass
class Replica:
    """One engine's prefix cache and its work."""

    capacity: int
    """Number of cached blocks."""
    blocks: OrderedDict[int, None] = field(default_factory=OrderedDict)
    hits: int = 0
    computed: int = 0
    requests: int = 0
    free_at: float = 0.0

    def cached(self, messages: Sequence[dict[str, str]]) -> int:
        """Number of blocks of a prompt that are cached."""
        return sum(1 for _ in itertools.takewhile(self.blocks.__contains__, _chains(messages)))

    def take(self, messages: Sequence[dict[str, str]]) -> int:
        """Compute a prompt; returns the number of blocks that were not cached."""
        known, new = 0, 0
        for chain in _chains(messages):
            if not new and chain in self.blocks:
                known += 1
                self.blocks.move_to_end(chain)
            else:
                new += 1
                self.blocks[chain] = None
        while len(self.blocks) > self.capacity:
            self.blocks.popitem(last=False)
        self.hits += known
        self.computed += new
        self.requests += 1
        return new


def _chains(messages: Sequence[dict[str, str]]) -> Iterator[int]:
    """The identity of each block of a prompt."""
    prompt = "".join(f"<{m['role']}>{m['content']}" for m in messages)
    chain = 0
    for start in range(0, len(prompt) - BLOCK + 1, BLOCK):
        chain = hash((chain, prompt[start : start + BLOCK]))
        yield chain


class KnownCaches(Balancer):
    """Chooses by the real contents of the caches, within the same bounds: no report of an engine is more exact."""

    def __init__(self) -> None:
        super().__init__()
        self.engines: dict[Target, Replica] = {}
        """The simulation sets it."""

    def choose(
        self,
        targets: Sequence[Target],
        tried: Container[Target] = (),
        body: bytes = b"",
        prompt_field: str = "",
        slots: int = 0,
    ) -> Target | None:
        """The target within the bounds that has most blocks of the prompt."""
        free = list(targets)
        self._start_counts(free)
        self._turn += 1
        messages = json.loads(body)["messages"]
        cached = {target: self.engines[target].cached(messages) for target in free}
        own = len(messages[0]["content"]) // BLOCK + 1  # more than the system prompt: the conversation itself
        known: list[Target] = []
        for count in sorted({each for each in cached.values() if each}, reverse=True):
            record = PrefixRecord("")
            record.replicas = tuple(target.replica_id for target in free if cached[target] == count)
            record.ends = 0 if count > own else COMMON_ENDS
            if known := self._within_bounds(free, record):
                break
        chosen = self._least_loaded(known or free)
        self._count_recent(chosen.replica_id)
        return chosen


class RoundRobin(Balancer):
    """Each target in turn, regardless of load."""

    _next = 0

    def choose(
        self,
        targets: Sequence[Target],
        tried: Container[Target] = (),
        body: bytes = b"",
        prompt_field: str = "",
        slots: int = 0,
    ) -> Target | None:
        """The next target."""
        self._next += 1
        return targets[self._next % len(targets)]


@dataclass(frozen=True)
class Outcome:
    """The result of a simulation."""

    hits: int
    """Blocks that were cached."""
    computed: int
    requests: tuple[int, ...]
    """Requests at each replica."""

    @property
    def hit_share(self) -> float:
        return self.hits / (self.hits + self.computed)

    @property
    def max_over_mean(self) -> float:
        """The busiest replica's requests over the mean."""
        return max(self.requests) * len(self.requests) / sum(self.requests)


def simulate(
    picker: Balancer, traffic: Traffic, *, replicas: int = 4, capacity: int, at_once: int | None = None, seed: int = 1
) -> Outcome:
    """Run the traffic, at most `at_once` clients at a time, until every conversation has ended.

    A request takes one unit of time for each computed block and 20 for its answer; a replica computes one prompt
    at a time, and answers in parallel.
    """
    targets = tuple(Target(f"r{n}", f"http://127.0.0.1:{n}", "k") for n in range(replicas))
    engines = {target: Replica(capacity) for target in targets}
    if isinstance(picker, KnownCaches):
        picker.engines = engines
    waiting = deque(client(traffic, number, seed) for number in range(traffic.conversations))
    running: list[tuple[float, int, Target | None, Iterator[list[dict[str, str]]]]] = []
    for number in range(min(at_once or traffic.conversations, traffic.conversations)):
        heapq.heappush(running, (number / 100, number, None, waiting.popleft()))
    order = len(running)
    while running:
        now, _, ended, source = heapq.heappop(running)
        if ended is not None:
            picker.end(ended)
        messages = next(source, None)
        if messages is None:
            if waiting:
                heapq.heappush(running, (now, order := order + 1, None, waiting.popleft()))
            continue
        target = picker.choose(targets, (), body_of(messages), "messages")
        assert target is not None
        picker.begin(target)
        engine = engines[target]
        engine.free_at = max(engine.free_at, now) + engine.take(messages)
        heapq.heappush(running, (engine.free_at + 20, order := order + 1, target, source))
    return Outcome(
        sum(e.hits for e in engines.values()),
        sum(e.computed for e in engines.values()),
        tuple(e.requests for e in engines.values()),
    )


def working_set(traffic: Traffic) -> int:
    """Blocks of all concurrent conversations at their longest."""
    each = traffic.system_bytes + traffic.turns * (traffic.user_bytes + traffic.answer_bytes)
    return traffic.conversations * each // BLOCK
