"""Part 2: agents with one system prompt take turns with growing histories."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from benchmarks.shared_beginnings.client import Server, in_threads, text

#: The default limit: seconds a turn of all agents, and seconds for each word of their common beginning in it.
TURN_SECONDS, TURN_SECONDS_A_WORD = 60, 0.015
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds a file by its name.",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


def agents(
    servers: dict[str, Server], words: int, turns: int, count: int, limit: float | None, turn_words: int
) -> None:
    """Part 2: the servers take turns with each turn of all agents, so that both have the same machine."""
    until = time.monotonic() + ((TURN_SECONDS + TURN_SECONDS_A_WORD * words) * turns if limit is None else limit)
    histories: dict[tuple[str, int], list[dict[str, Any]]] = {}
    total = dict.fromkeys(servers, 0.0)
    before = {name: server.computed_tokens() for name, server in servers.items()}
    for turn in range(turns):
        if turn and time.monotonic() > until:
            print(f"the limit of time ended the part after {turn} of {turns} turns", flush=True)
            break
        for name, server in servers.items():
            begin = server.clock()
            of_agents = [histories.setdefault((name, n), [_system(words)]) for n in range(count)]
            in_threads(partial(_turn, server, turn, turn_words), range(count), of_agents)
            total[name] += server.clock() - begin
        print(f"turn {turn + 1}: xinference / bare {total['xinference'] / total['bare']:.2f}", flush=True)
    for name, server in servers.items():
        tokens = server.computed_tokens() - before[name]
        print(f"{name}: {total[name]:.1f} s, {tokens:.0f} tokens of prompts computed", flush=True)


def _system(words: int) -> dict[str, Any]:
    return {"role": "system", "content": text("agents", words)}


def _turn(server: Server, turn: int, words: int, agent: int, messages: list[dict[str, Any]]) -> None:
    messages.append({"role": "user", "content": text((agent, turn), words)})
    body = {"model": "m", "messages": messages, "tools": [TOOL], "max_tokens": 8, "temperature": 0}
    answer = server.post("/v1/chat/completions", body)["choices"][0]["message"]
    messages.append({"role": "assistant", "content": answer.get("content") or "Done."})
