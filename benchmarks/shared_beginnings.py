"""Time to the first token with equal beginnings: this server with llama.cpp, and the same engine with its defaults.

    python -m benchmarks.shared_beginnings --weights SmolLM2-135M-Instruct.Q4_1.gguf [--rounds 3] [--words 1850]
        [--agent-words 6600] [--context 8192] [--turns 20] [--limit SECONDS] [--threads 1 --clock engine]
        [--before CHECKOUT]

Both run at the same time and take turns with each request or burst; the ratios of one run count, not the seconds. Part
1 sends eight requests at once with one beginning, which nobody had before, and again after one request. Part 2 lets
agents with one system prompt take turns with growing histories: what Codex and Claude Code send first has about 10,000
and 19,000 tokens, so the agents' common beginning fills most of this model's 8,192; `--context` measures longer ones
with a copy of the weights. Part 3 kills the engine, unloads the model, and lets a request load it; then it asks for a
hot beginning, whose first token must come at most 0.3 s after the load. Part 4 compares prompts that have nothing in
common, with and without shared beginnings, or with the server of another source tree (`--before`). Part 5 asks the bare
engine eight questions at once whose beginnings lie in eight slots already: nobody can be faster than that. Part 6 fills
the slots and the saved states to their bounds, and compares the memory with the plan. Part 7 measures on the bare
engine of what the time of a warm request consists: its own tokens after a known beginning, a token of the answer, the
save and the restore of a state, and the same number of questions at once and one after the other.

On a machine with other work, `--threads 1 --clock engine` counts the seconds that the engine's process has computed:
with more threads, an engine that shares its cores waits for its own threads most of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.trained_context import weights_for
from xinference.catalog.registry import builtin_families
from xinference.engines.llama_cpp.engine import PROGRAM

WORDS = ("river", "stone", "lamp", "north", "seven", "quiet", "glass", "orbit", "paper", "winter", "signal", "amber")
SLOTS, CONTEXT = 8, 4096
#: All that the model has: agents begin with long instructions.
AGENT_CONTEXT = 8192
#: The default limit of part 2: seconds a turn of all agents, and seconds for each word of their common beginning in it.
TURN_SECONDS, TURN_SECONDS_A_WORD = 60, 0.015
#: The lengths of the own part of a prompt in part 7, in words.
OWN_WORDS = (1, 9, 18, 36, 72)
#: The slots and the context of part 6, which computes each cell of the cache.
FILLED_SLOTS, FILLED_CONTEXT = 2, 2048
#: The rounds of shorter prompts, whose states take the planned memory in small pieces.
FILLING_ROUNDS = 6
KEY = "benchmark"
#: Parameters with which each slot keeps its prompt while others compute.
SLOTS_APART = {"kv_unified": False, "cache_ram_mib": 0, "cache_idle_slots": False, "n_ctx": (CONTEXT + 256) * SLOTS}
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds a file by its name.",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Server:
    """A server of OpenAI's protocol."""

    url: str
    key: str = ""
    clock: Callable[[], float] = time.perf_counter

    def post(self, path: str, body: Any) -> Any:
        """The decoded answer."""
        with urllib.request.urlopen(self._request(path, body), timeout=3600) as answer:
            return json.load(answer)

    def first_token(self, body: dict[str, Any]) -> float:
        """Seconds until the first text of a stream, or its end if it has none; it is read to its end.

        Raises:
            RuntimeError: the stream has neither.
        """
        begin, first, line = self.clock(), 0.0, b""
        with urllib.request.urlopen(
            self._request("/v1/chat/completions", {**body, "stream": True}), timeout=3600
        ) as answer:
            for line in answer:
                if not first and (b'"content":"' in line or b'"finish_reason":"' in line):
                    first = self.clock() - begin
        if not first:
            raise RuntimeError(f"{self.url} ended its stream without an answer: {line[:300]!r}")
        return first

    def burst(self, bodies: Sequence[dict[str, Any]]) -> list[float]:
        """The seconds until the first token of each of these requests, sent at once."""
        return in_threads(self.first_token, bodies)

    def computed_tokens(self) -> float:
        """Tokens of prompts that the engine has computed, without those that it had."""
        if not self.key:
            with urllib.request.urlopen(f"{self.url}/v1/models/m/engine", timeout=60) as answer:
                (replica,) = json.load(answer)
                return float(replica["prefix_queries"] - replica["prefix_hits"])
        request = urllib.request.Request(f"{self.url}/metrics", headers={"authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[:1] != "#")
            return float(found["llamacpp:prompt_tokens_total"])

    def _request(self, path: str, body: Any) -> urllib.request.Request:
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        return urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)


def in_threads(work: Callable[..., Result], *arguments: Sequence[Any]) -> list[Result]:
    """All results of calls at the same time. An interrupt waits for none of them."""
    pool = ThreadPoolExecutor(len(arguments[0]))
    try:
        return list(pool.map(work, *arguments))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def text(seed: object, words: int) -> str:
    """Random words, the same for the same seed."""
    return " ".join(random.Random(str(seed)).choices(WORDS, k=words))


def chat(system: str, question: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return {"model": "m", "messages": messages, "max_tokens": 4, "temperature": 0, **fields}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, default=1850, help="length of the common beginning; a word is a token")
    parser.add_argument("--agent-words", type=int, default=6600, help="part 2: length of the agents' common beginning")
    parser.add_argument(
        "--context",
        type=int,
        default=AGENT_CONTEXT,
        metavar="TOKENS",
        help="part 2: context of each agent; above the model's, a copy of the weights states it",
    )
    parser.add_argument("--turns", type=int, default=20, help="part 2: turns of each agent")
    parser.add_argument(
        "--limit",
        type=float,
        metavar="SECONDS",
        help="part 2: no turn begins later; default: 60 a turn and 0.015 for each word of --agent-words in each turn",
    )
    parser.add_argument("--agents", type=int, default=4, help="part 2: number of agents")
    parser.add_argument("--parts", default="123")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--clock", choices=("wall", "engine"), default="wall")
    parser.add_argument("--before", type=Path, help="part 4: another source tree, in place of shared beginnings off")
    arguments = parser.parse_args()
    weights = arguments.weights.absolute()
    by_engine, threads = arguments.clock == "engine", arguments.threads
    for part, context in (("1", CONTEXT), ("2", arguments.context)):
        if part not in arguments.parts:
            continue
        with (
            tempfile.TemporaryDirectory() as home,
            weights_for(weights, context) as file,
            ours(file, Path(home), threads, by_engine=by_engine, n_ctx=context) as own,
            bare(file, threads, by_engine=by_engine, kv_unified_per_slot=context + 1) as engine,
        ):
            servers = {"xinference": own, "bare": engine}
            for server in servers.values():
                server.first_token(chat("Be short.", "Hello."))
            if part == "1":
                bursts(servers, arguments.rounds, arguments.words)
            else:
                agents(servers, arguments.agent_words, arguments.turns, arguments.agents, arguments.limit)
            memory(own)
    if "3" in arguments.parts:
        with (
            tempfile.TemporaryDirectory() as home,
            ours(weights, Path(home), threads, by_engine=by_engine, on_demand=True, ttl=0) as own,
            bare(weights, threads, by_engine=by_engine) as engine,
        ):
            loads(own, engine, arguments)
    if "4" in arguments.parts:
        with (
            tempfile.TemporaryDirectory() as home,
            tempfile.TemporaryDirectory() as other,
            ours(weights, Path(home), threads, by_engine=by_engine) as own,
            ours(weights, Path(other), threads, by_engine=by_engine, shares=False, source=arguments.before) as without,
        ):
            apart(own, without, "before" if arguments.before else "off", 8 * arguments.rounds)
    if "5" in arguments.parts:
        with bare(weights, threads, by_engine=by_engine, **SLOTS_APART) as engine:
            floor(engine, arguments.rounds, arguments.words)
    if "7" in arguments.parts:
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as states,
            bare(
                weights, threads, by_engine=by_engine, slot_save_path=f"{_folder_in(states)}/", **SLOTS_APART
            ) as engine,
        ):
            costs(engine, arguments.rounds, arguments.words)
    if "6" in arguments.parts:
        with (
            tempfile.TemporaryDirectory() as home,
            ours(weights, Path(home), threads, by_engine=False, n_parallel=FILLED_SLOTS, n_ctx=FILLED_CONTEXT) as own,
        ):
            filled(own)


def _folder_in(states: str) -> Path:
    """A folder for saved states: the engine deletes it, and the one around it, at its end."""
    folder = Path(states) / "m"
    folder.mkdir()
    return folder


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


def agents(servers: dict[str, Server], words: int, turns: int, count: int, limit: float | None) -> None:
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
            in_threads(partial(_turn, server, turn), range(count), of_agents)
            total[name] += server.clock() - begin
        print(f"turn {turn + 1}: xinference / bare {total['xinference'] / total['bare']:.2f}", flush=True)
    for name, server in servers.items():
        tokens = server.computed_tokens() - before[name]
        print(f"{name}: {total[name]:.1f} s, {tokens:.0f} tokens of prompts computed", flush=True)


def _system(words: int) -> dict[str, Any]:
    return {"role": "system", "content": text("agents", words)}


def _turn(server: Server, turn: int, agent: int, messages: list[dict[str, Any]]) -> None:
    messages.append({"role": "user", "content": text((agent, turn), 30)})
    body = {"model": "m", "messages": messages, "tools": [TOOL], "max_tokens": 8, "temperature": 0}
    answer = server.post("/v1/chat/completions", body)["choices"][0]["message"]
    messages.append({"role": "assistant", "content": answer.get("content") or "Done."})


def loads(own: Server, engine: Server, arguments: argparse.Namespace) -> None:
    """Part 3."""
    system = text("hot", arguments.words)
    engine.first_token(chat("Be short.", "Hello."))
    cold = engine.first_token(chat(system, "Say cold."))
    for n in range(3):
        own.burst([chat(system, f"Say {n} {k}.") for k in range(2)])
    seconds: dict[str, list[float]] = {}
    ways = {"killed": _kill, "unloaded": _unload, "unloaded, loaded by the request": None}
    for n, (name, load) in itertools.product(range(arguments.rounds), ways.items()):
        body = chat(system, f"Say {n} {name}.")
        first = _first_after_load(own, body, load) if load else _first_above_load(own, body)
        seconds.setdefault(name, []).append(first)
        warm = _same_clock(own).first_token(chat(system, f"Say {n} warm."))
        seconds.setdefault("warm", []).append(warm)
        print(f"{name}: first token {first:.2f} s after the load (warm {warm:.2f} s)", flush=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"bare, cold: {cold:.2f} s; medians of {arguments.rounds} after the load:", flush=True)
    for name in ways:
        print(f"{name}: {median[name]:.2f} s, {median[name] - median['warm']:+.2f} s to warm", flush=True)


def _first_after_load(server: Server, body: dict[str, Any], load: Callable[[Server], None]) -> float:
    """Seconds to the first token of a request that is sent as soon as the engine runs again."""
    load(server)
    return _same_clock(server).first_token(body)


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
    _wait_for(
        f"{server.url}/v1/models/instances?model_uid=m",
        lambda found: found[0]["status"] == "READY" and found[0]["replicas"][0].get("engine_pid") not in (pid, None),
    )


def _unload(server: Server) -> None:
    server.post("/v1/models/m/unload", {})
    server.post("/v1/models/m/load", {})


def _same_clock(server: Server) -> Server:
    """The server with the clock of its present engine, if it counted the seconds of an engine."""
    return server if server.clock is time.perf_counter else replace(server, clock=engine_clock(engine_pid(server)))


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


def apart(own: Server, other: Server, name: str, count: int, words: int = 60) -> None:
    """Part 4: prompts that have nothing in common; the time of each whole request."""
    ratios = []
    for n in range(count):
        seconds = {}
        for server in (own, other) if n % 2 else (other, own):
            begin = server.clock()
            server.post(
                "/v1/chat/completions", chat(text(("apart", n), words), f"{n}?", max_tokens=16, ignore_eos=True)
            )
            seconds[server.url] = server.clock() - begin
        if n:  # the first one is slower on both
            ratios.append(seconds[own.url] / seconds[other.url])
    error = 1.96 * statistics.stdev(ratios) / len(ratios) ** 0.5
    print(
        f"nothing shared: shared / {name} {statistics.median(ratios):.3f} "
        f"(median of {len(ratios)}; mean {statistics.mean(ratios):.3f} +- {error:.3f})",
        flush=True,
    )


@contextmanager
def ours(
    weights: Path,
    home: Path,
    threads: int,
    *,
    by_engine: bool,
    shares: bool = True,
    source: Path | None = None,
    **fields: Any,
) -> Iterator[Server]:
    """This server with the model ``m``.

    Args:
        source: the source tree of the server; None: this one.
    """
    port = free_port()
    env = {key: value for key, value in os.environ.items() if not key.startswith("XINFERENCE_")}
    env |= {
        "XINFERENCE_HOME": str(home),
        "XINFERENCE_PORT": str(port),
        "XINFERENCE_SHARED_BEGINNINGS": str(shares).lower(),
    }
    if source is not None:
        env["PYTHONPATH"] = str(source.absolute() / "src")
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "xinference.server"], env=env, stdout=log, stderr=log)
    server = Server(f"http://127.0.0.1:{port}")
    try:
        _wait_for(f"{server.url}/health", lambda data: True)
        server.post(
            "/v1/models",
            {
                "model_uid": "m",
                "model_name": "smollm2-instruct",
                "model_type": "LLM",
                "model_engine": "llama.cpp",
                "model_format": "ggufv2",
                "model_size_in_billions": "0_135",
                "quantization": "Q4_1",
                "model_path": str(weights),
                "n_parallel": SLOTS,
                "n_ctx": CONTEXT,
                "n_threads": threads,
                "n_threads_batch": threads,
                **fields,
            },
        )
        if fields.get("on_demand"):
            server.post("/v1/models/m/load", {})
        yield replace(server, clock=engine_clock(engine_pid(server))) if by_engine else server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@contextmanager
def bare(weights: Path, threads: int, *, by_engine: bool, **further: Any) -> Iterator[Server]:
    """llama.cpp with the parameters that a launch without saved states has."""
    port = free_port()
    params = {
        "cpuparams.n_threads": threads,
        "cpuparams_batch.n_threads": threads,
        "cache_ram_mib": 512,
        "n_threads_http": 64,
        "ui": False,
        "endpoint_metrics": True,
        "model_alias": "m",
        "model_path": str(weights),
        "n_ctx": 0,
        "n_parallel": SLOTS,
        "kv_unified": True,
        "kv_unified_per_slot": CONTEXT + 1,
        "n_gpu_layers": 0,
        # The file's own template leaves the tools out.
        "chat_template": builtin_families()["smollm2-instruct"].chat_template,
        **further,
    }
    env = {**os.environ, "XINFERENCE_LLAMA_PARAMS": json.dumps(params), "XINFERENCE_ENGINE_KEY": KEY}
    process = subprocess.Popen(
        [sys.executable, "-I", str(PROGRAM), "--port", str(port)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = Server(f"http://127.0.0.1:{port}", KEY, engine_clock(process.pid) if by_engine else time.perf_counter)
    try:
        _wait_for(f"{server.url}/health", lambda data: True)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def engine_pid(server: Server, uid: str = "m") -> int:
    """The process of a model's engine."""
    with urllib.request.urlopen(f"{server.url}/v1/models/instances?model_uid={uid}", timeout=60) as answer:
        pid: int = json.load(answer)[0]["replicas"][0]["engine_pid"]
        return pid


def engine_clock(pid: int) -> Callable[[], float]:
    """The seconds that all threads of a process have computed."""

    def read() -> float:
        nanoseconds = 0
        for each in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                nanoseconds += int((each / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    return read


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_for(url: str, is_ready: Callable[[Any], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if is_ready(json.load(answer)):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"{url} is not ready")


if __name__ == "__main__":
    main()
