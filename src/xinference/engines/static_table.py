"""The formats, quantizations and model types that an engine supports on any host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from xinference.catalog.models import ModelSpec
from xinference.engines.support import YES, Support

#: ``Int4``, ``4bit``, and ``Int4-Int8Mix``, whose other layers have more bits.
_BITS = re.compile(r"(?:int)?(?P<bits>\d+)(?:-?bits?)?(?:-.+)?")
#: Formats that no engine here runs, with the reason.
NOT_RUN = {"mlx": "no engine here runs MLX; it needs Apple's GPU framework"}


@dataclass(frozen=True)
class StaticTable:
    """The formats, quantizations and model types that an engine supports on any host."""

    engine: str
    """The engine's display name."""
    formats: Mapping[str, tuple[str, ...] | None]
    """Format -> supported quantizations in lower case; None: all."""
    model_types: tuple[str, ...] = ("LLM",)
    aliases: tuple[str, ...] = ()
    """Further names of the engine in requests."""
    ranks_refusal: str | None = "it computes a replica on one machine"
    """Why several nodes can't compute one replica; None: they can."""
    loads_adapters: bool = False
    """Whether it loads LoRA adapters in PEFT's form."""

    def has_name(self, requested: str) -> bool:
        """Whether this is the engine's name or an alias, in any case, with any hyphens, underscores and dots."""
        return _letters(requested) in {_letters(name) for name in (self.engine, *self.aliases)}

    def supports(self, spec: ModelSpec, quantization: str | None = None) -> Support:
        """Whether the engine supports this spec; without a quantization, whether it supports one of the spec's."""
        if spec.model_format in NOT_RUN:
            return Support(NOT_RUN[spec.model_format])
        if spec.model_format not in self.formats:
            known = ", ".join(self.formats)
            return Support(f"{self.engine} runs {known}, not {spec.model_format}")
        allowed = self.formats[spec.model_format]
        requested = spec.quantizations if quantization is None else (quantization,)
        if allowed is None or any(_canonical(q, spec.model_format) in allowed for q in requested):
            return YES
        supported, names = " or ".join(allowed), ", ".join(requested)
        return Support(f"{self.engine} runs {spec.model_format} with quantization {supported}, not {names}")


def _letters(name: str) -> str:
    """The letters and digits of a name: ``llama-cpp`` and ``llama.cpp`` have the same."""
    return "".join(filter(str.isalnum, name.lower()))


def _canonical(quantization: str, model_format: str) -> str:
    """The quantization's canonical name: ``Int4`` and ``4bit`` are ``4-bit``.

    In the format ``pytorch``, ``4-bit`` means that the engine packs whole weights, and ``Int4`` that they are packed.
    """
    lowered = quantization.lower()
    if model_format == "pytorch":
        return lowered
    if model_format == "awq" and lowered.startswith("awq"):  # AWQ has 4 bits, unless the name says otherwise
        return "4-bit"
    match = _BITS.fullmatch(lowered)
    return f"{match['bits']}-bit" if match else lowered
