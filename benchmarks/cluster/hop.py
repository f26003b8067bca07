"""What a replica on another node costs a request: time to the first token, and processor time for each chunk."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.cluster.clusters import Client, cluster, cpu_seconds, launch, one_machine
from benchmarks.cluster.figures import Figure

#: Pairs of streams whose first tokens are compared.
PAIRS = 300
#: Streams at one time, their events, the seconds between two events, and the rounds.
STREAMS, CHUNKS, INTERVAL, ROUNDS = 16, 300, 0.01, 5


def measure(file: Path) -> Iterator[Figure]:
    """Streams to one machine and through a supervisor to its worker, in turn."""
    yield _first_token(file)
    yield _chunk(file)


def _first_token(file: Path) -> Figure:
    with one_machine(file, chunks=2) as alone, cluster(file, 1) as made:
        launch(made, file, chunks=2)
        local, remote = Client("127.0.0.1", alone.port), Client(made.home.host, made.home.port)
        for client in (local, remote) * 30:  # warm both
            client.stream()
        firsts: tuple[list[float], list[float]] = ([], [])
        for number in range(PAIRS):
            order = (0, 1) if number % 2 else (1, 0)
            for side in order:
                firsts[side].append((local, remote)[side].stream().first)
    here, there = (statistics.median(each) * 1000 for each in firsts)
    added = statistics.median((b - a) * 1000 for a, b in zip(*firsts, strict=True))
    note = f"median of {PAIRS} pairs; one machine {here:.2f} ms, remote {there:.2f} ms"
    return Figure("added time to the first token", added, "ms", 0.5, note)


def _chunk(file: Path) -> Figure:
    # All on loopback: a packet through the switch between two hosts of a network namespace each costs its sender 10 us.
    with one_machine(file, STREAMS, chunks=CHUNKS, interval=INTERVAL) as alone, cluster(file, 1, cables=False) as made:
        launch(made, file, lanes=STREAMS, chunks=CHUNKS, interval=INTERVAL)
        assert alone.server is not None and made.server is not None and made.workers[0].process is not None
        sides: list[tuple[Callable[[], Client], list[int]]] = [
            (lambda: Client("127.0.0.1", alone.port), [alone.server.pid]),
            (lambda: Client(made.home.host, made.home.port), [made.server.pid, made.workers[0].process.pid]),
        ]
        costs: tuple[list[float], list[float]] = ([], [])
        for number in range(ROUNDS):
            for side in (0, 1) if number % 2 else (1, 0):
                costs[side].append(_cost(*sides[side]))
    here, there = (statistics.median(each) for each in costs)
    note = f"{STREAMS} streams, an event each {INTERVAL * 1000:g} ms; one machine {here:.0f} us, remote {there:.0f} us"
    return Figure("processor time of the hop for a chunk", there - here, "us", 60, note)


def _cost(client: Callable[[], Client], pids: list[int]) -> float:
    """Microseconds of the processes for a chunk of the same streams."""
    clients = [client() for _ in range(STREAMS)]
    before = sum(map(cpu_seconds, pids))
    with ThreadPoolExecutor(STREAMS) as threads:
        list(threads.map(Client.stream, clients))
    spent = sum(map(cpu_seconds, pids)) - before
    for each in clients:
        each.close()
    return spent / (STREAMS * CHUNKS) * 1e6
