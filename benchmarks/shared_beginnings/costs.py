"""Part 7: of what the time of a warm request consists, on the bare engine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.shared_beginnings.client import Server, chat, text
from benchmarks.shared_beginnings.servers import SLOTS

#: The lengths of the own part of a prompt, in words.
OWN_WORDS = (1, 9, 18, 36, 72)


def costs(engine: Server, rounds: int, words: int) -> None:
    """Part 7."""
    system, state = text("costs", words), {"filename": "one.state"}
    engine.first_token(chat(system, "Say a word.", id_slot=0))
    engine.post("/slots/0?action=save", state)
    for slot in range(1, SLOTS):
        engine.post(f"/slots/{slot}?action=restore", state)
    seconds: dict[str, list[float]] = {}
    for n in range(rounds):
        bodies = [chat(system, f"Say {k} {n}.", id_slot=k, max_tokens=1) for k in range(SLOTS)]
        calls: dict[str, Callable[[], object]] = {
            **{
                f"{count} words after {words}": partial(
                    engine.first_token, chat(system, text((count, n), count), id_slot=0, max_tokens=1)
                )
                for count in OWN_WORDS
            },
            "answer of 33 tokens, its prompt known": partial(
                engine.first_token,
                chat(system, text((OWN_WORDS[-1], n), OWN_WORDS[-1]), id_slot=0, max_tokens=33, ignore_eos=True),
            ),
            "save": partial(engine.post, "/slots/0?action=save", state),
            "restore": partial(engine.post, "/slots/0?action=restore", state),
            f"{SLOTS} questions at once": partial(engine.burst, bodies),
            f"the same {SLOTS} again": partial(engine.burst, bodies),
            f"{SLOTS} others one after the other": partial(
                _in_turn,
                engine,
                [chat(system, f"Tell {k} {n}.", id_slot=k, max_tokens=1) for k in range(SLOTS)],
            ),
        }
        for name, call in calls.items():
            begin = engine.clock()
            call()
            seconds.setdefault(name, []).append(engine.clock() - begin)
            print(f"{name}: {seconds[name][-1] * 1000:.0f} ms", flush=True)
    print(f"medians of {rounds}:", flush=True)
    for name, values in seconds.items():
        print(f"{name}: {statistics.median(values) * 1000:.0f} ms", flush=True)


def _in_turn(server: Server, bodies: Sequence[dict[str, Any]]) -> list[float]:
    return [server.first_token(body) for body in bodies]
