"""What vLLM and SGLang have in common: parsers of their own, weights packed while they are loaded, draft models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelVersion
from xinference.engines.base import ExtraWeightFile
from xinference.engines.options import lora
from xinference.engines.options.online_quantization import OnlineQuantization
from xinference.engines.options.option_table import OptionTable
from xinference.engines.options.parsers import Parsers
from xinference.engines.options.reasoning import read_reasoning, without_reasoning
from xinference.engines.shared_parts import (
    LoadsAdapters,
    ReadsPacked,
    SetsThinking,
    WeightsOnly,
)
from xinference.launch.plan import LaunchPlan, ResolvedLaunch
from xinference.launch.request import LaunchRequest

#: The reasoning parser of a launch whose reasoning stays in the answer.
NO_PARSER = ""


def drop_no_parser(settings: dict[str, Any]) -> None:
    """Remove the reasoning parser of a launch whose reasoning stays in the answer: the engine has no name for none."""
    if settings.get("reasoning_parser") == NO_PARSER:
        del settings["reasoning_parser"]


class ParserEngine(LoadsAdapters, ReadsPacked, SetsThinking, WeightsOnly):
    """The part of `Engine` that is the same for all engines whose own server parses tool calls and reasoning."""

    options: OptionTable
    parsers: Parsers
    online: OnlineQuantization
    own_options: Callable[[Mapping[str, Any]], dict[str, Any]]
    """Replaces the options that have the same name on every engine by the engine's own. Raises `Problem`."""
    draft_files: Callable[[Mapping[str, Any], Path], tuple[ExtraWeightFile, ...]]
    """The weights that draft tokens in a launch with these options, by the path of the model's weights."""
    package = None
    #: Its options are shipped with Xinference, because its environment may not be installed yet.
    describe_argv: tuple[str, ...] = ()

    def open_options(self, known: Mapping[str, str]) -> Mapping[str, str]:
        return self.options.open_kinds

    def check_options(self, options: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
        checked = self.options.check(self.own_options(without_reasoning(options)))
        if read_reasoning(options, "reasoning_parser") is False:
            checked["reasoning_parser"] = NO_PARSER
        if (name := self.adapters_option) in checked:
            checked[name] = lora.read_modules(name, checked[name])
        return checked

    def complete_options(
        self, version: ModelVersion, request: LaunchRequest, options: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        options, packed = self.online.complete(version, options)
        completed, reasons = super().complete_options(version, request, options)
        return completed, (*packed, *reasons, *self.parsers.reasons(version.family, options))

    def extra_weight_files(self, launch: ResolvedLaunch, path: Path) -> tuple[ExtraWeightFile, ...]:
        return self.draft_files(launch.options, path)

    def tool_refusal(self, plan: LaunchPlan) -> str | None:
        return self.parsers.tool_refusal(plan.version.family, plan.options)
