"""The interface of an engine to the rest of the system; each engine has its own folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion, Source
from xinference.engines.memory_model import MemoryModel
from xinference.engines.options.online_quantization import OnlineQuantization
from xinference.engines.options.thinking import ThinkingOption, with_thinking
from xinference.engines.options.variable_policy import VariablePolicy
from xinference.engines.packing_support import PackingTable
from xinference.engines.support import YES as YES
from xinference.engines.support import Support as Support
from xinference.environments.spec import EnvironmentSpec
from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.hardware.devices import Host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.process.command import EngineCommand

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


@dataclass(frozen=True)
class Lack:
    """Something that a machine lacks, and its effect on one engine."""

    resource: Literal["AVX2", "AVX-512", "GPU"]
    effect: str
    """Begins with the engine's name: ``SGLang can't run``."""


def lacks_avx2(host: Host) -> bool:
    """Whether the processor has neither AVX2 nor the vector instructions of ARM."""
    return "avx2" not in host.cpu_flags and not {"asimd", "asimddp", "neon"} & host.cpu_flags


@dataclass(frozen=True)
class Rank:
    """One of the nodes that compute a replica together: each computes some of the layers, for all tokens."""

    number: int
    """0 answers the requests."""
    count: int
    """Number of nodes."""
    address: str
    """The address of this rank's node, at which the other ranks reach it."""
    head_address: str
    """That of rank 0."""
    head_port: int
    """The port of rank 0 at which the ranks meet."""
    interface: str | None = None
    """The network interface that has `address`; None: the engine looks for one."""


@dataclass(frozen=True)
class Placement:
    """The environment and the devices of one replica."""

    python: Path
    """The interpreter of its environment."""
    devices: tuple[int, ...] = ()
    """Indices of its GPUs; empty: CPU."""
    states: Path | None = None
    """The folder for the saved states of prompts; None: the replica saves none."""
    rank: Rank | None = None
    """None: one node computes the replica."""

    @property
    def answers(self) -> bool:
        """Whether the process answers requests, which further ranks do not."""
        return self.rank is None or self.rank.number == 0


def rank_env(rank: Rank | None) -> dict[str, str]:
    """The variables that make the libraries of an engine connect the ranks by the network of `rank`'s address."""
    if rank is None or rank.interface is None:
        return {}
    return {"NCCL_SOCKET_IFNAME": rank.interface, "GLOO_SOCKET_IFNAME": rank.interface}


def cuda_env(placement: Placement) -> dict[str, str]:
    """The variables that make only the replica's own GPUs visible to an engine; on the CPU, no GPU is visible."""
    devices = ",".join(str(index) for index in placement.devices)
    # By default, CUDA orders the devices by speed; NVML, whose indices are used here, orders them by PCI address.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": devices}


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


def refuse_without_head(launch: ResolvedLaunch, shape: ModelShape) -> None:
    """Refuse to rank by a folder of safetensors whose model has no head for one score.

    Raises:
        Problem: 400 ``engine_unsupported``.
    """
    if launch.version.family.model_type != "rerank" or not shape.architecture:
        return
    if shape.architecture.endswith("ForSequenceClassification") and shape.labels == 1:
        return
    labels = f" with {shape.labels} scores" if shape.labels not in (None, 1) else ""
    raise bad_request(
        f"{launch.version.family.model_name} can't rank: its config.json names {shape.architecture}{labels}, "
        "and a reranker is a ForSequenceClassification with one score.",
        hint="Launch a reranker, or launch this model with another --model-type.",
        code=Code.ENGINE_UNSUPPORTED,
    )


class WeightsOnly:
    """The part of `Engine` that all engines without additional weight files share."""

    def reads(self, family: ModelFamily) -> Support:
        return YES

    def check_packing(self, launch: ResolvedLaunch, shape: ModelShape, host: Host) -> None:
        """All packings are those of the formats in the table."""

    def check_weights(self, launch: ResolvedLaunch, shape: ModelShape) -> None:
        refuse_without_head(launch, shape)

    def choose_files(self, source: Source | None, version: ModelVersion, options: Mapping[str, Any]) -> FileChoice:
        return FileChoice(source, options)

    def extra_weight_files(self, launch: ResolvedLaunch, path: Path) -> tuple[ExtraWeightFile, ...]:
        return ()

    def tool_refusal(self, plan: LaunchPlan) -> str | None:
        return None

    def abilities(self, plan: LaunchPlan) -> tuple[str, ...]:
        return plan.version.family.model_ability

    def option_changes(self, host: Host, slots: int, *, any_answers: bool) -> Sequence[Sequence[Mapping[str, Any]]]:
        return ()


class ReadsPacked:
    """The part of `Engine` that is the same for all engines which read folders of safetensors."""

    packings: PackingTable
    online: OnlineQuantization | None = None
    """None: the engine packs no weights by an option of this kind."""

    def check_packing(self, launch: ResolvedLaunch, shape: ModelShape, host: Host) -> None:
        if shape.packing is not None:
            support = self.packings.supports(shape.packing, host)
        else:
            support = self._check_online(launch, host)
        if not support:
            raise bad_request(
                f"{launch.engine} can't run {launch.version.version_id} here: {support.reason}.",
                hint="Launch another version of the model, such as one in GGUF, or the weights as trained.",
                code=Code.ENGINE_UNSUPPORTED,
            )
        if shape.packing is not None and self._packs(launch):
            raise bad_request(
                f"The weights of {launch.version.version_id} are packed already ({shape.packing.title}), so that they "
                f"can't be packed while they are loaded.",
                hint="Launch them with the quantization under which they are listed, and without --quantization of "
                "the engine.",
                code=Code.UNSUPPORTED_OPTION,
            )

    def _packs(self, launch: ResolvedLaunch) -> bool:
        """Whether the launch packs weights while they are loaded, and does not only name how they are packed."""
        online = self.online
        if online is None or launch.version.spec.model_format != "pytorch":
            return False
        return online.method(launch.version.quantization, launch.options) is not None

    def _check_online(self, launch: ResolvedLaunch, host: Host) -> Support:
        if self.online is None or not self._packs(launch):
            return YES
        if not host.gpus and not self.online.on_cpu:
            return Support(f"there is no CUDA device, and {self.online.engine} packs weights on GPUs only")
        method = self.online.method(launch.version.quantization, launch.options)
        return YES if method is None else self.packings.supports_scheme(method.scheme, host)


class SetsThinking:
    """The part of `Engine` that completes a launch's options with `with_thinking`."""

    table: StaticTable
    thinking: ThinkingOption | None = None
    """None: the engine has no such option."""

    def complete_options(
        self, version: ModelVersion, request: LaunchRequest, options: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        return with_thinking(self.table.engine, self.thinking, version, request.enable_thinking, options)


class LoadsAdapters:
    """The part of `Engine` that is the same for all engines which load LoRA adapters."""

    adapters_option = "lora_modules"
    """The engine's option whose checked value maps the name of an adapter to its path."""

    def adapters(self, plan: LaunchPlan) -> Mapping[str, str]:
        adapters: Mapping[str, str] = plan.options.get(self.adapters_option, {})
        return adapters

    def lora_names(self, plan: LaunchPlan) -> tuple[str, ...]:
        return tuple(self.adapters(plan))


def explanation_of(log_tail: Sequence[str], explanations: Iterable[tuple[str, str]]) -> str | None:
    """The explanation of the first known part, in lower case, that an engine's last log lines contain."""
    text = "\n".join(log_tail).lower()
    return next((explanation for part, explanation in explanations if part in text), None)


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
