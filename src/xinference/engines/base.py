"""What every engine provides to the rest of the system. One folder an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from xinference.catalog.models import ModelSpec, ModelVersion, Source
from xinference.engines.memory_model import MemoryModel
from xinference.engines.options.variable_policy import VariablePolicy
from xinference.environments.spec import EnvironmentSpec
from xinference.hardware.devices import Host
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.process.command import EngineCommand


@dataclass(frozen=True)
class Support:
    """Yes, or the reason why not."""

    reason: str | None = None
    """None means yes."""

    def __bool__(self) -> bool:
        return self.reason is None


YES = Support()


@dataclass(frozen=True)
class StaticTable:
    """Which formats and quantizations an engine takes, from the spec alone."""

    engine: str
    formats: Mapping[str, tuple[str, ...] | None]
    """Format -> quantizations it takes (lower case), or None for any."""
    model_types: tuple[str, ...] = ("LLM",)

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


@dataclass(frozen=True)
class Placement:
    """Where one replica runs."""

    python: Path
    """Interpreter of its environment."""
    devices: tuple[int, ...] = ()
    """Indices of its GPUs; empty: the CPU."""


def cuda_env(placement: Placement) -> dict[str, str]:
    """The variables that show an engine its own GPUs only: none, if it is to run on the CPU."""
    devices = ",".join(str(index) for index in placement.devices)
    # CUDA's own order is by speed, NVML's and ours by place: the numbers must mean the same.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": devices}


@dataclass(frozen=True)
class FileChoice:
    """What a launch fetches, and the options that name its files."""

    source: Source | None
    """None: the weights were given by their path."""
    options: Mapping[str, Any]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExtraWeightFile:
    """A GGUF file that is loaded in addition to the weights, and counts as weights."""

    path: Path
    kind: str
    """Such as ``projector``."""
    architecture: str
    """What its header must name."""
    hint: str
    """The way out where the header names something else."""


class WeightsOnly:
    """The part of `Engine` that is the same for all engines which load a version's weights and no other file."""

    def choose_files(self, source: Source | None, version: ModelVersion, options: Mapping[str, Any]) -> FileChoice:
        return FileChoice(source, options)

    def extra_weight_files(self, launch: ResolvedLaunch, path: Path) -> tuple[ExtraWeightFile, ...]:
        return ()

    def abilities(self, plan: LaunchPlan) -> tuple[str, ...]:
        return plan.version.family.model_ability


class Engine(Protocol):
    """What one engine is to the rest of the system."""

    @property
    def table(self) -> StaticTable:
        """What it supports: static, from the spec alone."""
        ...

    @property
    def memory(self) -> MemoryModel:
        """What planning must know of its memory."""
        ...

    @property
    def variables(self) -> VariablePolicy:
        """The environment variables that a launch may set for its processes."""
        ...

    @property
    def describe_argv(self) -> tuple[str, ...]:
        """Prints the native options it knows as JSON ``{"options": {name: type}}``."""
        ...

    def available(self, spec: ModelSpec, host: Host) -> Support:
        """Whether this host can run it: installed, and on hardware it has kernels for."""
        ...

    def check_options(self, options: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
        """The user's options by the engine's own names.

        Raises:
            Problem: 400, naming an unknown option with near ones, one whose value has the wrong type, or one that a
                launch may not set.
        """
        ...

    def complete_options(
        self, version: ModelVersion, request: LaunchRequest, options: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """Checked options, with what the request says in our own words, and the reasons for the plan.

        Raises:
            Problem: 400 ``unsupported_option``.
        """
        ...

    def choose_files(self, source: Source | None, version: ModelVersion, options: Mapping[str, Any]) -> FileChoice:
        """The files that it needs in addition to the weights; without a source the weights were given by their path.

        Raises:
            Problem: 400, naming a file that is not there.
        """
        ...

    def extra_weight_files(self, launch: ResolvedLaunch, path: Path) -> tuple[ExtraWeightFile, ...]:
        """The files of `choose_files` that count as weights, the weights being at `path`."""
        ...

    def abilities(self, plan: LaunchPlan) -> tuple[str, ...]:
        """What the model can do when it is started by `plan`."""
        ...

    def adapters(self, plan: LaunchPlan) -> Mapping[str, str]:
        """The LoRA adapters that `plan` loads: name -> absolute path of the folder."""
        ...

    def lora_names(self, plan: LaunchPlan) -> tuple[str, ...]:
        """The names by which it serves the adapters of `plan`, in addition to the model's own."""
        ...

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        """The request paths it serves when started by `plan`."""
        ...

    def environment(self, host: Host) -> EnvironmentSpec | None:
        """The environment it runs in on this host; None: the server's own."""
        ...

    def command(self, plan: SizedPlan, api_key: str, placement: Placement) -> EngineCommand:
        """What to start for one replica."""
        ...

    def explain(self, log_tail: Sequence[str]) -> str | None:
        """What its last words mean to a user, if they are known."""
        ...
