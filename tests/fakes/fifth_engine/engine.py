"""An engine that no module of ours knows: one folder has all of it, and it is registered by one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.fifth_engine.dialect import NAME
from tests.fakes.fifth_engine.memory_model import MEMORY
from tests.fakes.running import ENGINE as PROGRAM
from xinference.catalog.models import ModelSpec, ModelVersion
from xinference.engines.base import Lack
from xinference.engines.options.variable_policy import COMMON, VariablePolicy
from xinference.engines.replica_placement import (
    Placement,
    cuda_env,
)
from xinference.engines.shared_parts import WeightsOnly
from xinference.engines.static_table import StaticTable
from xinference.engines.support import (
    YES,
    Support,
)
from xinference.environments.spec import EnvironmentSpec
from xinference.hardware.devices import Host
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.process.command import EngineCommand


class FifthEngine(WeightsOnly):
    """Runs GGUF on the scriptable fake engine; its option ``script`` is the fake's script."""

    table = StaticTable(engine=NAME, formats={"ggufv2": None})
    memory = MEMORY
    variables = VariablePolicy(engine=NAME, allowed=COMMON)
    describe_argv: tuple[str, ...] = ()

    package = None

    def lacks(self, host: Host) -> tuple[Lack, ...]:
        return ()

    def available(self, spec: ModelSpec, host: Host) -> Support:
        return YES

    def open_options(self, known: Mapping[str, str]) -> Mapping[str, str]:
        return {}

    def check_options(self, options: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
        return dict(options)

    def complete_options(
        self, version: ModelVersion, request: LaunchRequest, options: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        return options, ("the fifth engine takes all options as they are",)

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        messages = {"/v1/messages", "/v1/messages/count_tokens"} if "agent" in plan.options.get("script", {}) else ()
        return frozenset({"/v1/chat/completions", *messages})

    def adapters(self, plan: LaunchPlan) -> Mapping[str, str]:
        return {}

    def lora_names(self, plan: LaunchPlan) -> tuple[str, ...]:
        return ()

    def environment(self, host: Host) -> EnvironmentSpec | None:
        return None

    def command(self, plan: SizedPlan, api_key: str, placement: Placement) -> EngineCommand:
        script = {"model_name": plan.uid, **plan.options.get("script", {})}
        return EngineCommand(
            argv=(sys.executable, str(PROGRAM), "--port", "{port}", "--script", json.dumps(script)),
            env={"FAKE_ENGINE_KEY": api_key, **cuda_env(placement)},
            model_name=plan.uid,
            api_key=api_key,
        )

    def explain(self, log_tail: Sequence[str]) -> str | None:
        return None
