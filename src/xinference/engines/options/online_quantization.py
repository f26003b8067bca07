"""Weights that an engine packs while it loads them: by the quantization of the launch, or by the engine's own option.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xinference.catalog.models import ModelVersion
from xinference.catalog.packing import Scheme
from xinference.error_codes import Code
from xinference.errors import Problem, join_names, near

OPTION = "quantization"


@dataclass(frozen=True)
class OnlineMethod:
    """One way to pack weights while they are loaded."""

    flag: str
    """The value of the engine's option."""
    bits: float
    """Bits of one weight afterwards, with the scales."""
    scheme: Scheme


@dataclass(frozen=True)
class OnlineQuantization:
    """The methods of one engine."""

    engine: str
    """The engine's name and version."""
    methods: Mapping[str, OnlineMethod]
    """Name in a launch -> the method."""
    for_packed: frozenset[str]
    """Values of the option for weights that are packed already."""
    by_quantization: Mapping[str, str] = field(default_factory=lambda: {"fp8": "fp8"})
    """Quantization of a launch, in lower case -> name of its method."""
    on_cpu: bool = False
    """Whether the engine packs weights without a GPU, too."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Methods of other versions and engines -> the reason against them."""

    def method(self, quantization: str, options: Mapping[str, Any]) -> OnlineMethod | None:
        """The method of a launch of unpacked weights; None: they stay as they are."""
        name = options.get(OPTION) or self.by_quantization.get(quantization.lower())
        return self.methods.get(str(name)) if name is not None else None

    def complete(self, version: ModelVersion, options: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """The options with the engine's own value for the method of a launch, and the plan's reason.

        Raises:
            Problem: 400 ``bad_option``: a method that the engine does not have.
        """
        if OPTION in options:
            self._check(str(options[OPTION]))
        if version.spec.model_format != "pytorch":
            return options, ()
        method = self.method(version.quantization, options)
        if method is None:
            return options, ()
        reason = f"--{OPTION} {method.flag}: {self.engine} packs the weights while it loads them"
        return {**options, OPTION: method.flag}, (reason,)

    def _check(self, name: str) -> None:
        if name in self.refused:
            raise Problem(Code.BAD_OPTION, f"--{OPTION} is {name!r}: {self.refused[name]}.")
        if name not in self.methods and name not in self.for_packed:
            known = [*self.methods, *sorted(self.for_packed)]
            similar = near(name, known) or list(self.methods)
            raise Problem(
                Code.BAD_OPTION,
                f"--{OPTION} is {name!r}, which {self.engine} does not have.",
                hint=f"It packs weights by {', '.join(self.methods)}."
                if similar == list(self.methods)
                else f"Did you mean {join_names(similar[:3])}?",
            )
