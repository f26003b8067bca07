"""A figure with its budget, and the table of all."""

from __future__ import annotations

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


#: The head of a Markdown table of figures.
HEAD = ("| figure | measured | budget | holds | |", "|---|---|---|---|---|")


def row(figure: Figure) -> str:
    """The row of a figure."""
    measured, budget = f"{figure.value:.3g} {figure.unit}", f"{figure.budget:g} {figure.unit}"
    return f"| {figure.name} | {measured} | {budget} | {'yes' if figure.holds else 'NO'} | {figure.note} |"
