"""One deployment: a task that makes reality equal to its row, from the first fetch to the last exit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xinference.deployments import views
from xinference.deployments.context import DeploymentContext, Ending
from xinference.deployments.drain import drain
from xinference.deployments.on_demand import OnDemand
from xinference.deployments.preparation import Loading
from xinference.deployments.progress import progress
from xinference.deployments.replica_set import ReplicaSet, Scaler
from xinference.deployments.state import DeploymentState
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.planning.occupancy import Occupancy
from xinference.process.replica import Replica
from xinference.routing.table import Route

log = logging.getLogger(__name__)


class Deployment:
    """Owns what runs of one row; everything that changes, changes in its task."""

    def __init__(
        self, plan: LaunchPlan, around: DeploymentContext, created: float, problem: Problem | None = None
    ) -> None:
        self._around = around
        self._state = DeploymentState(plan, around, created, problem)
        self._loading = Loading(self._state)
        self._replicas = ReplicaSet(self._state, self._loading.interpreter)
        self._task: asyncio.Task[None] | None = None
        self.scaler = Scaler(self._state, self._replicas)

    # -- seen by others -------------------------------------------------------------------------------------

    @property
    def uid(self) -> str:
        return self._state.uid

    @property
    def plan(self) -> LaunchPlan:
        return self._state.plan

    @property
    def created(self) -> float:
        return self._state.created

    @property
    def status(self) -> str:
        return self._state.status

    @property
    def problem(self) -> Problem | None:
        return self._state.problem

    @property
    def on_demand(self) -> OnDemand | None:
        return self._state.on_demand

    @property
    def ready(self) -> bool:
        return self._replicas.ready

    @property
    def launching(self) -> bool:
        """Whether it is on its way to its first answer."""
        at_first = not self._state.was_ready if self.on_demand is None else not self._loading.prepared
        return self.problem is None and at_first and self._state.ending is None

    @property
    def description(self) -> dict[str, Any]:
        return views.description(self._state, self._replicas)

    @property
    def instance(self) -> dict[str, Any]:
        return views.instance(self._state, self._replicas)

    @property
    def replicas(self) -> list[dict[str, Any]]:
        return views.replica_entries(self._state, self._replicas)

    @property
    def route(self) -> Route:
        return views.route(self._state, self._replicas)

    @property
    def progress(self) -> dict[str, Any]:
        """How far its launch is: see `progress.progress`."""
        stage = "ready" if self.ready else self._state.stage
        failed = (self.problem.stage or "start") if self.problem else None
        return progress(stage, failed, self._around.events.moving(self.uid), self.replicas, time.time())

    @property
    def log_paths(self) -> list[Path]:
        return self._replicas.log_paths

    @property
    def replica_ids(self) -> list[str]:
        """Its engines' names, as the data path counts them."""
        return self._replicas.ids

    # -- its life -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the owner task, unless the deployment has failed already."""
        if self.problem is None:
            self._task = asyncio.create_task(self._run(), name=f"deployment {self.uid}")

    async def end(self, how: Ending) -> None:
        """End the task: ``terminate`` and ``stop`` end the engines, ``detach`` leaves them for a successor."""
        self._state.ending = how
        self._loading.cancel()
        if how == "detach":  # before the task is cancelled: that would end an engine which is still loading
            await self._replicas.let_go()
        else:
            self._state.show("TERMINATING", "stop")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._replicas.let_go()

    async def finish_termination(self) -> None:
        """End what an earlier server was told to terminate and did not get to."""
        await self._replicas.adopt()
        await self.end("terminate")

    async def _run(self) -> None:
        try:
            adopted = await self._replicas.adopt()
            sized = isinstance(self.plan, SizedPlan)
            if self.on_demand is not None:
                if adopted and not sized:
                    await self.prepare()
                await self.on_demand.run(self, adopted)
                return
            if not adopted or not sized:
                await self._loading.weights()
            if not adopted:
                await self._loading.environment()
                await self._around.admission.admit(self)
            self._state.show("LOADING", "start")
            await self._replicas.keep(adopted)
        except Problem as problem:
            if self._state.ending is None:
                await self._fail(problem)
        except Exception as error:
            # The owner's last line: a defect of ours must end as a FAILED row, not as a silent dead task.
            log.exception("deployment %s", self.uid)
            cause = f"A defect in xinference: {error!r}."
            await self._fail(Problem("internal_error", 500, cause, stage=self._state.stage))

    async def _fail(self, problem: Problem) -> None:
        problem = problem.at(self._state.stage)
        self._state.problem = problem
        await self._replicas.let_go()
        self._around.store.set_problem(self.uid, problem)
        self._state.show("ERROR", "failed")
        self._around.events.add(self.uid, "FAILED", problem.stage or "failed", problem.cause, problem=problem)

    # -- on demand: steps that `OnDemand` takes in this task ---------------------------------------------------

    async def prepare(self) -> None:
        """Weights and environment here, in a form that can be loaded, and the size known: no memory is taken."""
        await self._loading.prepare()

    def rest(self, content: str, *, first: bool = False) -> None:
        """Nothing of it runs; `first`: its launch is over."""
        self._state.show("UNLOADED", "unloaded")
        kind = "READY" if first else "INFO"
        self._around.events.add(self.uid, kind, "unloaded", content, model=self.description if first else None)

    async def load(self) -> None:
        """Wait until there is room, and take it."""
        self._state.was_ready, self._state.load_began = False, time.time()
        self._state.show("LOADING", "room")
        if not self._loading.prepared:
            await self.prepare()
        await self._around.admission.admit(self)
        self._state.show("LOADING", "start")

    async def keep(self, adopted: Mapping[int, Replica]) -> None:
        """See `ReplicaSet.keep`."""
        await self._replicas.keep(adopted)

    async def drain(self) -> None:
        """Wait for its last answer, however long that takes: nothing in use is evicted."""
        await drain(self._around.admission.use, lambda: self.replica_ids)

    async def unload(self) -> None:
        """End its engines."""
        await self._replicas.clear()
        self._state.used = None

    # -- on demand: what `Admission` asks and says ---------------------------------------------------------------

    def sized(self, host: Host, around: Occupancy) -> SizedPlan:
        """See `Loading.sized`."""
        return self._loading.sized(host, around)

    def grant(self, plan: SizedPlan) -> None:
        """The memory of this plan is its own from now on."""
        self._state.plan = plan
        if self.on_demand is not None:
            self.on_demand.granted = True

    def check_wanted(self) -> None:
        """Refuse to go on waiting for room that nobody wants any more.

        Raises:
            Problem: ``nobody_waits``.
        """
        if self.on_demand is not None and not self.on_demand.waiting:
            raise Problem("nobody_waits", 503, f"Nobody waits for {self.uid} any more.")

    def leave(self, why: str) -> None:
        """From now on no request goes to it; it is unloaded once the last answer is sent."""
        assert self.on_demand is not None
        self.on_demand.leave(why)
        self._state.say("INFO", "unload", why)
        self._state.show("UNLOADING", "unload")
