"""Part 1: eight requests at once with one beginning. Part 5: the same on slots that have the beginning."""

from __future__ import annotations

import statistics

from benchmarks.shared_beginnings.client import Server, chat, text
from benchmarks.shared_beginnings.servers import SLOTS


def bursts(servers: dict[str, Server], rounds: int, words: int) -> None:
    """Part 1."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for n in range(rounds):
        for name, server in servers.items():

            def note(what: str, *values: float, name: str = name) -> None:
                seconds.setdefault((name, what), []).extend(values)
                print(f"{name}, {what}: {statistics.median(values):.2f} s", flush=True)

            note("one cold", server.first_token(chat(text(("one", n), words), "Say a word.")))
            note("8 cold", *server.burst([chat(text(("cold", n), words), f"Say {k}.") for k in range(SLOTS)]))
            system = text(("one", n), words)
            note("one warm", server.first_token(chat(system, "Say a name.")))
            note("8 after one", *server.burst([chat(system, f"Say {k}.") for k in range(SLOTS)]))
        median = {each: statistics.median(values) for each, values in seconds.items()}
        for name in servers:
            print(name, *(f"{what}: {median[name, what]:.2f} s" for _, what in median if _ == name), flush=True)
        own, engine = "xinference", "bare"
        print(
            f"8 cold / one cold: {median[own, '8 cold'] / median[own, 'one cold']:.2f} "
            f"(bare {median[engine, '8 cold'] / median[engine, 'one cold']:.2f}); "
            f"8 after one / one warm: {median[own, '8 after one'] / median[own, 'one warm']:.2f} "
            f"(bare {median[engine, '8 after one'] / median[engine, 'one warm']:.2f}); "
            f"bare / xinference: 8 cold {median[engine, '8 cold'] / median[own, '8 cold']:.1f}, "
            f"8 after one {median[engine, '8 after one'] / median[own, '8 after one']:.1f}",
            flush=True,
        )


def floor(engine: Server, rounds: int, words: int) -> None:
    """Part 5."""
    system = text("floor", words)
    for slot in range(SLOTS):
        engine.first_token(chat(system, "Say a word.", id_slot=slot))
    ratios = []
    for n in range(rounds):
        one = engine.first_token(chat(system, f"Say {n} name.", id_slot=0))
        each = engine.burst([chat(system, f"Say {k} {n}.", id_slot=k) for k in range(SLOTS)])
        ratios.append(statistics.median(each) / one)
        print(f"one warm slot: {one:.2f} s, 8 warm slots at once: {statistics.median(each):.2f} s", flush=True)
    print(f"bare, 8 warm slots at once / one: {statistics.median(ratios):.2f} (median of {rounds})", flush=True)
