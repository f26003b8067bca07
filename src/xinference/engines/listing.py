"""The list of the models of one engine, which older clients request by the engine's name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Listing:
    """The names by which the list is known."""

    engine: str
    """The engine's display name."""
    path: str
    """The path of its route."""
    command: str
    """The command of `xinference`."""
    method: str
    """The method of the Python client."""
