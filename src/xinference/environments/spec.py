"""The specification of an engine's environment: a plain value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Accelerator = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class EnvironmentSpec:
    """One engine's packages at one version for one kind of hardware."""

    engine: str
    """Display name: ``vLLM``."""
    version: str
    """The version of the engine's own package."""
    accelerator: Accelerator

    @property
    def name(self) -> str:
        """``vllm-0.32.0-cpu``, the stem of its lock file."""
        return f"{self.engine.lower()}-{self.version}-{self.accelerator}"
