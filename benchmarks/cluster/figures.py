"""A figure with its budget, and the table of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A figure that may be at most `budget`."""

    name: str
    value: float
    unit: str
    budget: float
    note: str = ""

    @property
    def holds(self) -> bool:
        return self.value <= self.budget


def table(figures: Iterable[Figure]) -> str:
    """A Markdown table."""
    lines = ["| figure | measured | budget | holds | |", "|---|---|---|---|---|"]
    for each in figures:
        holds = "yes" if each.holds else "NO"
        measured, budget = f"{each.value:.3g} {each.unit}", f"{each.budget:g} {each.unit}"
        lines.append(f"| {each.name} | {measured} | {budget} | {holds} | {each.note} |")
    return "\n".join(lines)
