"""What the process side is told to run, and how it ended: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EngineCommand:
    """One engine process, ready to be started.

    Every ``{port}`` in `argv` and `env` values stands for the loopback port that is chosen at the start.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the server's own environment; secrets go here, never in argv."""
    cwd: Path | None = None
    health_path: str = "/health"
    """Answers 200 once the model can be asked."""
    models_path: str = "/v1/models"
    """Needs the key and names `model_name`; proves that the port is held by our own engine."""
    model_name: str = ""
    api_key: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    """Opaque JSON for whoever adopts the engine later; the keeper only holds it."""


@dataclass(frozen=True)
class Exit:
    """How an engine ended."""

    code: int | None
    """Exit status, or None if a signal ended it."""
    signal: str | None
    """Name of the signal (``SIGKILL``), or None."""
    log_tail: tuple[str, ...]
    """Its last 40 lines, oldest first."""
    ran_seconds: float
    asked_for: bool = False
    """We ended it ourselves."""

    @property
    def reason(self) -> str:
        return f"was killed by {self.signal}" if self.signal else f"exited with status {self.code}"
