"""What a deployment needs before its replicas start: weights, an interpreter, and a size."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from xinference.control.stages import Stages
from xinference.control.state import DeploymentState
from xinference.hardware.devices import Host
from xinference.launch.plan import LaunchPlan
from xinference.planning.settle import Around, settle


class Loading:
    """Gets it for one deployment; can be cancelled."""

    def __init__(self, state: DeploymentState) -> None:
        self._state = state
        self._cancelled = threading.Event()
        self.stages = Stages(state.around, state.uid, self._cancelled, state.show)
        self._python: Path | None = None
        self._open_plan: LaunchPlan | None = None

    @property
    def prepared(self) -> bool:
        """Whether `prepare` has been through."""
        return self._open_plan is not None

    def cancel(self) -> None:
        """Nothing more is fetched, converted or installed."""
        self._cancelled.set()

    async def weights(self) -> None:
        """The weights here and their header read; the plan has its size."""
        self._state.plan = await self.stages.weights(self._state.plan)

    async def environment(self) -> Path:
        """The interpreter of its engine, whose environment is built if it is missing."""
        self._python = await self.stages.environment(self._state.engine)
        return self._python

    async def interpreter(self) -> Path:
        """The one that the deployment began with."""
        return self._python or await self.environment()

    async def prepare(self) -> None:
        """Weights and environment here, in a form that can be loaded, and the size known: no memory is taken."""
        plan = replace(self._state.plan, sizing=None, devices=())
        self._state.plan = await self.stages.weights(plan)
        await self.environment()
        self._open_plan = replace(plan, path=self._state.plan.path)

    def sized(self, host: Host, around: Around) -> LaunchPlan:
        """Its plan for such a room; what was planned and told to the user stays as it was told.

        Raises:
            Problem: ``does_not_fit``.
        """
        plan = self._open_plan
        if self._state.on_demand is None or plan is None or plan.path is None:
            return self._state.plan
        assert self.stages.shape is not None
        return settle(plan, plan.path, self.stages.shape, host, self.stages.told, around)
