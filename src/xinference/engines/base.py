"""What an engine is to us: four functions. One file an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from xinference.catalog.models import ModelSpec


@dataclass(frozen=True)
class Support:
    """Yes, or the reason why not."""

    reason: str | None = None
    """None means yes."""

    def __bool__(self) -> bool:
        return self.reason is None


YES = Support()


class FormatRule(Protocol):
    def __call__(self, quantization: str) -> bool: ...


@dataclass(frozen=True)
class StaticTable:
    """Which formats and quantizations an engine takes, from the spec alone."""

    engine: str
    formats: Mapping[str, tuple[str, ...] | None]
    """Format -> quantizations it takes (lower case), or None for any."""

    def supports(self, spec: ModelSpec, quantization: str | None = None) -> Support:
        """Whether the engine takes this spec; without a quantization, whether it takes any of it."""
        if spec.model_format not in self.formats:
            known = ", ".join(self.formats)
            return Support(f"{self.engine} runs {known}, not {spec.model_format}")
        allowed = self.formats[spec.model_format]
        wanted = spec.quantizations if quantization is None else (quantization,)
        if allowed is None or any(_canonical(q) in allowed for q in wanted):
            return YES
        return Support(
            f"{self.engine} runs {spec.model_format} with quantization {' or '.join(allowed)}, not {', '.join(wanted)}"
        )


def _canonical(quantization: str) -> str:
    """``Int4`` and ``4-bit`` are one thing under two names."""
    lowered = quantization.lower()
    return f"{lowered[3:]}-bit" if lowered.startswith("int") and lowered[3:].isdigit() else lowered


OptionTypes = Mapping[str, Any]
