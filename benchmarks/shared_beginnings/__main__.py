"""Time to the first token with equal beginnings: this server with llama.cpp, and the same engine with its defaults.

    python -m benchmarks.shared_beginnings --weights SmolLM2-135M-Instruct.Q4_1.gguf [--rounds 3] [--words 1850]
        [--agent-words 6600] [--context 8192] [--turn-words 30] [--turns 20] [--limit SECONDS]
        [--threads 1 --clock engine] [--before CHECKOUT]

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
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tests.support.end_signals import end_as_ctrl_c

from benchmarks.shared_beginnings.agents import agents
from benchmarks.shared_beginnings.bursts import bursts, floor
from benchmarks.shared_beginnings.client import Server, chat
from benchmarks.shared_beginnings.costs import costs
from benchmarks.shared_beginnings.loads import loads
from benchmarks.shared_beginnings.memory import FILLED_CONTEXT, FILLED_SLOTS, filled, memory
from benchmarks.shared_beginnings.nothing_shared import apart
from benchmarks.shared_beginnings.servers import CONTEXT, SLOTS_APART, bare, ours
from benchmarks.shared_beginnings.trained_context import weights_for

#: All that SmolLM2 has: agents begin with long instructions.
AGENT_CONTEXT = 8192


def main() -> None:
    arguments = _arguments()
    for number, part in PARTS.items():
        if number in arguments.parts:
            part(arguments.weights.absolute(), arguments)


def _arguments() -> argparse.Namespace:
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
    parser.add_argument(
        "--turn-words", type=int, default=30, help="part 2: length of what each turn adds, without its answer"
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
    return parser.parse_args()


def _bursts(weights: Path, arguments: argparse.Namespace) -> None:
    with _both(weights, arguments, CONTEXT) as servers:
        bursts(servers, arguments.rounds, arguments.words)


def _agents(weights: Path, arguments: argparse.Namespace) -> None:
    with weights_for(weights, arguments.context) as file, _both(file, arguments, arguments.context) as servers:
        agents(servers, arguments.agent_words, arguments.turns, arguments.agents, arguments.limit, arguments.turn_words)


@contextmanager
def _both(weights: Path, arguments: argparse.Namespace, context: int) -> Iterator[dict[str, Server]]:
    """Both servers, after a first request to each; at the end, the memory of this one."""
    with (
        _ours(weights, arguments, n_ctx=context) as own,
        _bare(weights, arguments, kv_unified_per_slot=context + 1) as engine,
    ):
        servers = {"xinference": own, "bare": engine}
        for server in servers.values():
            server.first_token(chat("Be short.", "Hello."))
        yield servers
        memory(own)


def _loads(weights: Path, arguments: argparse.Namespace) -> None:
    with _ours(weights, arguments, on_demand=True, ttl=0) as own, _bare(weights, arguments) as engine:
        loads(own, engine, arguments.rounds, arguments.words)


def _apart(weights: Path, arguments: argparse.Namespace) -> None:
    with (
        _ours(weights, arguments) as own,
        _ours(weights, arguments, shares=False, source=arguments.before) as other,
    ):
        apart(own, other, "before" if arguments.before else "off", 8 * arguments.rounds)


def _floor(weights: Path, arguments: argparse.Namespace) -> None:
    with _bare(weights, arguments, **SLOTS_APART) as engine:
        floor(engine, arguments.rounds, arguments.words)


def _filled(weights: Path, arguments: argparse.Namespace) -> None:
    with _ours(weights, arguments, n_parallel=FILLED_SLOTS, n_ctx=FILLED_CONTEXT) as own:
        filled(own)


def _costs(weights: Path, arguments: argparse.Namespace) -> None:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as states,
        _bare(weights, arguments, slot_save_path=f"{_folder_in(states)}/", **SLOTS_APART) as engine,
    ):
        costs(engine, arguments.rounds, arguments.words)


@contextmanager
def _ours(weights: Path, arguments: argparse.Namespace, **further: Any) -> Iterator[Server]:
    by_engine = arguments.clock == "engine"
    with (
        tempfile.TemporaryDirectory() as home,
        ours(weights, Path(home), arguments.threads, by_engine=by_engine, **further) as server,
    ):
        yield server


def _bare(weights: Path, arguments: argparse.Namespace, **further: Any) -> AbstractContextManager[Server]:
    return bare(weights, arguments.threads, by_engine=arguments.clock == "engine", **further)


def _folder_in(states: str) -> Path:
    """A folder for saved states: the engine deletes it, and the one around it, at its end."""
    folder = Path(states) / "m"
    folder.mkdir()
    return folder


PARTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "1": _bursts,
    "2": _agents,
    "3": _loads,
    "4": _apart,
    "5": _floor,
    "6": _filled,
    "7": _costs,
}


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
