"""The parts of `Engine` that are the same for several engines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelFamily, ModelVersion, Source
from xinference.engines.base import ExtraWeightFile, FileChoice
from xinference.engines.options.online_quantization import OnlineQuantization
from xinference.engines.options.thinking import ThinkingOption, with_thinking
from xinference.engines.packing_support import PackingTable
from xinference.engines.static_table import StaticTable
from xinference.engines.support import YES, Support
from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.hardware.devices import Host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan, ResolvedLaunch
from xinference.launch.request import LaunchRequest


def lacks_avx2(host: Host) -> bool:
    """Whether the processor has neither AVX2 nor the vector instructions of ARM."""
    return "avx2" not in host.cpu_flags and not {"asimd", "asimddp", "neon"} & host.cpu_flags


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
