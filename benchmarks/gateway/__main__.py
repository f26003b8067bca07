"""The command: runs every load on every target in turn; prints a table, writes a JSON file and a picture."""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from pathlib import Path

from tests.support.end_signals import end_as_ctrl_c

from benchmarks.gateway import __doc__ as about
from benchmarks.gateway.cells import Cell, Figures, cells, open_minute
from benchmarks.gateway.report import table, write_json, write_picture
from benchmarks.gateway.targets import Target, costless

#: Xinference 4.1.0 with such an engine, 32 connections: figures of `upstream_xinference`, not of this run.
PEER = {"tokens_per_second": 1219.0, "requests_per_second": 79.0}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=about)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the load, as a functional check")
    parser.add_argument("--only", help="only loads with this prefix: stream, paced, whole")
    parser.add_argument("--connections", type=int, help="only loads with this number of connections")
    parser.add_argument("--no-minute", action="store_true", help="skip the minute with 1,000 open streams")
    parser.add_argument(
        "--versus", action="append", default=[], metavar="NAME=SRC", help="src folder of another checkout"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="also measure the gateway with this number of processes"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    versus = {name: Path(source).absolute() for name, _, source in (v.partition("=") for v in arguments.versus)}
    wanted = [
        cell
        for cell in cells(arguments.quick)
        if cell.kind.startswith(arguments.only or "")
        and (arguments.connections is None or cell.connections == arguments.connections)
    ]
    with costless(versus, arguments.processes) as targets:
        figures = measure(targets, wanted, arguments.rounds)
    if not arguments.no_minute:
        # On a fresh server: one that has served as many before would not grow.
        with costless({}) as targets:
            figures += measure(targets[1:], [open_minute(arguments.quick)], 1)
    print(table(figures))
    for line in summary(figures):
        print(line)
    if arguments.json:
        facts: dict[str, object] = {"machine": platform.machine(), "python": platform.python_version(), "peer": PEER}
        write_json(arguments.json, figures, facts)
    if arguments.picture:
        write_picture(arguments.picture, figures)
    return 1 if any(f.errors for f in figures) else 0


def measure(targets: list[Target], wanted: list[Cell], rounds: int) -> list[Figures]:
    """Each load on each target, in turn, in reverse order in the next round (A B B A)."""
    found = {(cell.label, t.name): Figures(cell, t.name) for cell in wanted for t in targets}
    for n in range(rounds):
        for cell in wanted:
            print(f"round {n + 1}: {cell.label}", file=sys.stderr)
            for target in targets[:: -1 if n % 2 else 1]:
                found[cell.label, target.name].rounds.append(target.measure(cell.load))
    return list(found.values())


def summary(figures: list[Figures]) -> list[str]:
    """The measured figures beside those of Xinference 4.1.0."""
    ours = [f for f in figures if f.target == "xinference"]
    lines = []
    for kind, unit, peer in (("stream", "tok/s", "tokens_per_second"), ("whole", "req/s", "requests_per_second")):
        if found := [f for f in ours if f.cell.kind == kind and f.cell.connections == 32]:
            rate = found[0].median("rate")
            lines.append(f"{unit} at 32: {rate:,.0f}, {rate / PEER[peer]:.0f} times Xinference 4.1.0's {PEER[peer]:g}")
    if paced := [f for f in ours if f.cell.kind == "paced"]:
        cost = statistics.median(f.median("server_cpu") for f in paced) * 1e6
        lines.append(f"CPU a chunk, paced streams: {cost:.1f} µs")
    if whole := [f for f in ours if f.cell.kind == "whole"]:
        cost = statistics.median(f.median("server_cpu") for f in whole) * 1e6
        lines.append(f"CPU a whole answer: {cost:.0f} µs")
    if minute := [f for f in ours if f.cell.connections == 1000 and f.cell.kind == "paced"]:
        f = minute[0]
        lines.append(
            f"1,000 streams open for {f.median('seconds'):.0f} s: {f.errors} errors, "
            f"{f.memory_a_stream / 1000:.1f} kB of memory each"
        )
    return lines


if __name__ == "__main__":
    end_as_ctrl_c()
    sys.exit(main())
