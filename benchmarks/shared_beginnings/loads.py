"""Part 3: the first token of a hot beginning after the engine was killed, unloaded, and loaded by a request."""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.shared_beginnings.client import Server, chat, text
from benchmarks.shared_beginnings.servers import engine_pid, wait_for, with_present_clock


def loads(own: Server, engine: Server, rounds: int, words: int) -> None:
    """Part 3."""
    system = text("hot", words)
    engine.first_token(chat("Be short.", "Hello."))
    cold = engine.first_token(chat(system, "Say cold."))
    for n in range(3):
        own.burst([chat(system, f"Say {n} {k}.") for k in range(2)])
    seconds: dict[str, list[float]] = {}
    ways = {"killed": _kill, "unloaded": _unload, "unloaded, loaded by the request": None}
    for n, (name, load) in itertools.product(range(rounds), ways.items()):
        body = chat(system, f"Say {n} {name}.")
        first = _first_after_load(own, body, load) if load else _first_above_load(own, body)
        seconds.setdefault(name, []).append(first)
        warm = with_present_clock(own).first_token(chat(system, f"Say {n} warm."))
        seconds.setdefault("warm", []).append(warm)
        print(f"{name}: first token {first:.2f} s after the load (warm {warm:.2f} s)", flush=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"bare, cold: {cold:.2f} s; medians of {rounds} after the load:", flush=True)
    for name in ways:
        print(f"{name}: {median[name]:.2f} s, {median[name] - median['warm']:+.2f} s to warm", flush=True)


def _first_after_load(server: Server, body: dict[str, Any], load: Callable[[Server], None]) -> float:
    """Seconds to the first token of a request that is sent as soon as the engine runs again."""
    load(server)
    return with_present_clock(server).first_token(body)


def _first_above_load(server: Server, body: dict[str, Any]) -> float:
    """Wall seconds from the end of a load to the first token of the request that caused the load."""
    server.post("/v1/models/m/unload", {})
    begin = time.time()
    first = replace(server, clock=time.time).first_token(body)
    with urllib.request.urlopen(f"{server.url}/v1/models/m/events", timeout=60) as answer:
        ready = max(float(each["event_ts"]) for each in json.load(answer) if each["event_type"] == "READY")
    return begin + first - ready


def _kill(server: Server) -> None:
    pid = engine_pid(server)
    os.kill(pid, signal.SIGKILL)
    wait_for(
        f"{server.url}/v1/models/instances?model_uid=m",
        lambda found: found[0]["status"] == "READY" and found[0]["replicas"][0].get("engine_pid") not in (pid, None),
    )


def _unload(server: Server) -> None:
    server.post("/v1/models/m/unload", {})
    server.post("/v1/models/m/load", {})
