"""The command of an engine process and its exit: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EngineCommand:
    """The command line and environment of one engine process.

    Every ``{port}`` in `argv` and `env` values is replaced by the loopback port that is chosen at the start.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the server's own environment; secrets belong here, never in argv."""
    cwd: Path | None = None
    health_path: str = "/health"
    """Answers 200 once the model is ready."""
    models_path: str = "/v1/models"
    """Requires the key and lists `model_name`, which proves that the started engine has the port."""
    model_name: str = ""
    api_key: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    """Opaque JSON for a later server that adopts the engine; the keeper only stores it."""


@dataclass(frozen=True)
class Exit:
    """The exit of an engine."""

    code: int | None
    """Exit status, or None if a signal killed it."""
    signal: str | None
    """Name of the signal (``SIGKILL``), or None."""
    log_tail: tuple[str, ...]
    """The last 40 lines of the engine's output, oldest first."""
    ran_seconds: float
    requested: bool = False
    """Whether the server requested the stop."""

    @property
    def reason(self) -> str:
        return f"was killed by {self.signal}" if self.signal else f"exited with status {self.code}"
