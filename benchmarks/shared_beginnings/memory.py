"""The planned and the measured memory of the model. Part 6: all slots and saved states are full."""

from __future__ import annotations

import json
import time
import urllib.request

from benchmarks.shared_beginnings.client import Server, chat, text

#: The slots and the context of part 6, which computes each cell of the cache.
FILLED_SLOTS, FILLED_CONTEXT = 2, 2048
#: The rounds of shorter prompts, whose states take the planned memory in small pieces.
FILLING_ROUNDS = 6


def memory(server: Server) -> None:
    """The planned and the measured memory of the model, with its saved states."""
    time.sleep(2.1)  # a reading is kept for 2 s
    with urllib.request.urlopen(f"{server.url}/v1/devices", timeout=60) as answer:
        (owner,) = json.load(answer)["host"]["owners"]
    planned, measured = owner["planned"] / 2**20, owner["measured"] / 2**20
    print(f"memory: planned {planned:.0f} MiB, measured {measured:.0f} MiB ({measured / planned:.2f})", flush=True)


def filled(server: Server) -> None:
    """Part 6: prompts of almost a whole context, then shorter ones, each other than those before."""
    for number, share in enumerate((1, *[4] * FILLING_ROUNDS)):
        words = FILLED_CONTEXT // share - 100
        server.burst([chat(text(("filled", number, n), words), "Go.") for n in range(FILLED_SLOTS)])
        print(f"saved states: {_state_bytes(server) / 2**20:.0f} MiB", flush=True)
    memory(server)


def _state_bytes(server: Server) -> float:
    """Bytes of the saved states in memory."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("xinference_prompt_states_bytes{"))
