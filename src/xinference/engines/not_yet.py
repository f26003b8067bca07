"""An engine whose table is known, so that it is listed with a true reason, but which we can't start yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xinference import __version__
from xinference.catalog.models import ModelSpec
from xinference.engines.base import Placement, StaticTable, Support
from xinference.environments.spec import EnvironmentSpec
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.planning.launch_plan import LaunchPlan
from xinference.process.command import EngineCommand


class NotYet:
    """Never available; asking it to start is refused with the reason."""

    describe_argv: tuple[str, ...] = ()

    def __init__(self, table: StaticTable) -> None:
        self.table = table

    @property
    def _reason(self) -> str:
        return f"xinference {__version__} does not start {self.table.engine} yet"

    def available(self, spec: ModelSpec, host: Host) -> Support:
        return Support(self._reason)

    def check_options(self, options: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
        return dict(options)

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        return frozenset()

    def environment(self, host: Host) -> EnvironmentSpec | None:
        return None

    def command(self, plan: LaunchPlan, api_key: str, placement: Placement) -> EngineCommand:
        raise Problem("engine_unavailable", 400, f"{self._reason}.")

    def explain(self, log_tail: Sequence[str]) -> str | None:
        return None
