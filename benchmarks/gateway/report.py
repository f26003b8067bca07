"""The table, the JSON file and the picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.gateway.cells import Figures

HEADINGS = (
    "load, connections",
    "target",
    "a second",
    "of alone",
    "first p50 ms",
    "p99",
    "gap p50 ms",
    "p99",
    "server CPU µs",
    "load's own µs",
    "errors",
)
COLOURS = ("#9aa5b1", "#1f6feb", "#d29922", "#8250df")


def table(figures: list[Figures]) -> str:
    """One row for each load and target, as Markdown."""
    rows = [_row(f, _alone(f, figures)) for f in figures]
    widths = [max(len(row[n]) for row in (HEADINGS, *rows)) for n in range(len(HEADINGS))]
    lines = [_line(HEADINGS, widths), "|" + "|".join("-" * (w + 2) for w in widths) + "|"]
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def write_json(file: Path, figures: list[Figures], facts: dict[str, object]) -> None:
    """All measurements of each round."""
    cells = [
        {"load": f.cell.label, "target": f.target, "rounds": [asdict(r) for r in f.rounds], "spec": asdict(f.cell.load)}
        for f in figures
    ]
    file.write_text(json.dumps({**facts, "cells": cells}, indent=1) + "\n")


def write_picture(file: Path, figures: list[Figures]) -> None:
    """Bars of tokens/s by streams and of requests/s by connections, one colour for each target."""
    charts = [
        _chart([f for f in figures if f.cell.kind == kind], title, x)
        for kind, title, x in (("stream", "tokens per second", 0), ("whole", "whole answers per second", 480))
    ]
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="960" height="300" font-family="sans-serif" font-size="12">'
    file.write_text(f'{svg}\n<rect width="960" height="300" fill="#ffffff"/>\n{"".join(charts)}</svg>\n')


def _chart(figures: list[Figures], title: str, left: int) -> str:
    names = list(dict.fromkeys(f.target for f in figures))
    groups = list(dict.fromkeys(f.cell.connections for f in figures))
    top = max((f.median("rate") for f in figures), default=1.0)
    width = 420 / max(1, len(groups))
    parts = [f'<text x="{left + 30}" y="22" font-weight="bold">{title}, by connections</text>\n']
    for f in figures:
        bar = (width - 14) / len(names)
        x = left + 30 + groups.index(f.cell.connections) * width + names.index(f.target) * bar
        height = 200 * f.median("rate") / top
        colour = COLOURS[names.index(f.target) % len(COLOURS)]
        parts.append(
            f'<rect x="{x:.1f}" y="{250 - height:.1f}" width="{bar - 2:.1f}" height="{height:.1f}" fill="{colour}"/>\n'
            f'<text x="{x + bar / 2 - 1:.1f}" y="{246 - height:.1f}" text-anchor="middle" font-size="8">'
            f"{_thousands(f.median('rate'))}</text>\n"
        )
    for n, connections in enumerate(groups):
        middle = left + 30 + n * width + (width - 14) / 2
        parts.append(f'<text x="{middle:.1f}" y="266" text-anchor="middle">{connections:,}</text>\n')
    for n, name in enumerate(names):
        x = left + 30 + n * 130
        parts.append(f'<rect x="{x}" y="278" width="10" height="10" fill="{COLOURS[n % len(COLOURS)]}"/>\n')
        parts.append(f'<text x="{x + 15}" y="287">{name}</text>\n')
    return "".join(parts)


def _thousands(rate: float) -> str:
    return f"{rate / 1000:.0f}k" if rate >= 10_000 else f"{rate / 1000:.1f}k"


def _alone(figures: Figures, all_figures: list[Figures]) -> Figures:
    return next(f for f in all_figures if f.cell == figures.cell)


def _row(f: Figures, alone: Figures) -> tuple[str, ...]:
    def ms(name: str) -> str:
        return f"{f.median(name) * 1000:.2f}"

    unit = "tok" if f.cell.load.stream else "req"
    server = f"{f.median('server_cpu') * 1e6:.1f}" if f.median("server_cpu") else ""
    gaps = (ms("gap_p50"), ms("gap_p99")) if f.cell.load.stream else ("", "")
    ratio = "" if f is alone else f"{f.ratio(alone):.3f}"
    rate = f"{f.median('rate'):,.0f} {unit}"
    own = f"{f.median('load_cpu') * 1e6:.1f}"
    firsts = (ms("first_p50"), ms("first_p99"))
    return (f.cell.label, f.target, rate, ratio, *firsts, *gaps, server, own, str(f.errors))


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
