"""The interface of an engine to the rest of the system; each engine has its own folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion, Source
from xinference.engines.memory_model import MemoryModel
from xinference.engines.options.variable_policy import VariablePolicy
from xinference.engines.replica_placement import Placement
from xinference.engines.static_table import StaticTable
from xinference.engines.support import Support
from xinference.environments.spec import EnvironmentSpec
from xinference.hardware.devices import Host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.process.command import EngineCommand


@dataclass(frozen=True)
class Lack:
    """Something that a machine lacks, and its effect on one engine."""

    resource: Literal["AVX2", "AVX-512", "GPU"]
    effect: str
    """Begins with the engine's name: ``SGLang can't run``."""


@dataclass(frozen=True)
class FileChoice:
    """The files of a launch, and the options that name them."""

    source: Source | None
    """The repository with the files to download; None: the launch names the weights by their path."""
    options: Mapping[str, Any]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExtraWeightFile:
    """A GGUF file or a folder that is loaded in addition to the weights, and whose size counts as weights."""

    path: Path
    kind: str
    """The file's kind for messages, such as ``projector``."""
    architecture: str | None
    """The architecture that its header must name; None: any."""
    hint: str
    """The hint for a file whose header names another architecture."""
    has_cache: bool = False
    """Whether it is a model with keys and values of its own, for the same tokens."""
    is_own_layers: bool = False
    """Whether it stands for layers in the model's own weights that draft tokens: only their cache is added."""


class Engine(Protocol):
    """The interface of one engine."""

    @property
    def table(self) -> StaticTable:
        """The formats and model types that the engine supports on any host."""
        ...

    @property
    def memory(self) -> MemoryModel:
        """The engine's memory model, for planning."""
        ...

    @property
    def variables(self) -> VariablePolicy:
        """The environment variables that a launch may set for the engine's processes."""
        ...

    @property
    def describe_argv(self) -> tuple[str, ...]:
        """A command that prints the engine's options as JSON ``{"options": {name: type}}``; empty: they are shipped."""
        ...

    @property
    def package(self) -> str | None:
        """The package of the server's own environment that has the engine; None: the engine has its own environment."""
        ...

    def lacks(self, host: Host) -> tuple[Lack, ...]:
        """What this host lacks for the engine, whatever the model is."""
        ...

    def reads(self, family: ModelFamily) -> Support:
        """Whether the engine knows the family's architecture, whatever the host and the format."""
        ...

    def available(self, spec: ModelSpec, host: Host) -> Support:
        """Whether the engine can run the spec on this host: it is installed, and has kernels for the hardware."""
        ...

    def open_options(self, known: Mapping[str, str]) -> Mapping[str, str]:
        """The options that a launch may set, with their types.

        Args:
            known: option -> type, the output of `describe_argv`.
        """
        ...

    def check_options(self, options: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
        """Check the user's options, and return them by the engine's own names.

        Args:
            options: option -> value, by any accepted name.
            known: option -> type, the output of `describe_argv`.

        Raises:
            Problem: 400, names an unknown option and lists similar ones, or names an option that a launch may not set
                or whose value has the wrong type.
        """
        ...

    def complete_options(
        self, version: ModelVersion, request: LaunchRequest, options: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """Add the options that follow from other fields of the request to checked ones; also the plan's reasons.

        Raises:
            Problem: 400 ``unsupported_option``.
        """
        ...

    def choose_files(self, source: Source | None, version: ModelVersion, options: Mapping[str, Any]) -> FileChoice:
        """Choose the files to load in addition to the weights; `source` is None if the launch names a path.

        Raises:
            Problem: 400, names a file that does not exist.
        """
        ...

    def extra_weight_files(self, launch: ResolvedLaunch, path: Path) -> tuple[ExtraWeightFile, ...]:
        """The files of `choose_files` that count as weights; `path` is the path of the weights."""
        ...

    def check_weights(self, launch: ResolvedLaunch, shape: ModelShape) -> None:
        """Check that weights of this shape can answer the requests of the launch's model type.

        Raises:
            Problem: 400 ``engine_unsupported``, with the reason.
        """
        ...

    def check_packing(self, launch: ResolvedLaunch, shape: ModelShape, host: Host) -> None:
        """Check that the engine's kernels compute weights with this packing on this host.

        Raises:
            Problem: 400 ``engine_unsupported``, with the reason.
        """
        ...

    def abilities(self, plan: LaunchPlan) -> tuple[str, ...]:
        """The model's abilities with the options of `plan`."""
        ...

    def tool_refusal(self, plan: LaunchPlan) -> str | None:
        """Why the model can't choose a tool itself, with the way out; None: the engine reads its calls."""
        ...

    def adapters(self, plan: LaunchPlan) -> Mapping[str, str]:
        """The LoRA adapters that `plan` loads: name -> absolute path of the folder."""
        ...

    def lora_names(self, plan: LaunchPlan) -> tuple[str, ...]:
        """The names under which the engine serves the adapters of `plan`, without the model's own name."""
        ...

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        """The request paths that the engine serves with the options of `plan`."""
        ...

    def environment(self, host: Host) -> EnvironmentSpec | None:
        """The Python environment of the engine on this host; None: the server's own."""
        ...

    def command(self, plan: SizedPlan, api_key: str, placement: Placement) -> EngineCommand:
        """The command that starts one replica."""
        ...

    def option_changes(self, host: Host, slots: int, *, any_answers: bool) -> Sequence[Sequence[Mapping[str, Any]]]:
        """The changes that `xinference tune` measures, by the engine's own names; none: it measures nothing here.

        Of each group the best change is kept, and the next group adds to it.

        Args:
            slots: the number of slots of a launch without an option.
            any_answers: also changes that change the answers.
        """
        ...

    def explain(self, log_tail: Sequence[str]) -> str | None:
        """Explain the last lines of the log of an engine that has died; None: they contain no known error."""
        ...
