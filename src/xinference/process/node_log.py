"""The place of an engine's log: a file of this machine, or of another node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NodeLog:
    """A log file of another node."""

    node_id: str
    path: Path
    """Its path on that node."""


EngineLog = Path | NodeLog
