"""Prepares the load of a model: weights, environment, size and memory."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from xinference.deployments.context import DeploymentContext
from xinference.deployments.inbox import Inbox
from xinference.deployments.measurement import with_correction
from xinference.deployments.messages import PreparationFailed, Prepared, RestartDue, WeightsRead
from xinference.deployments.preparation import Preparation, Runnable, Weights
from xinference.deployments.record import Record
from xinference.deployments.snapshot import Stage
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.place import Place
from xinference.launch.plan import ResolvedLaunch, SizedPlan
from xinference.nodes.node import LOST_NODE
from xinference.planning.admission import Candidate
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.replicas import check_same_size, single_replica_launch
from xinference.planning.sizing import size_launch
from xinference.planning.summary import slots_and_context, summary

#: The number of lost nodes after which a preparation fails: the model itself may end the workers.
MAX_LOST_NODES = 5
#: Problems of a preparation without a place: a node may join, or start again.
NO_PLACE = frozenset({Code.NO_NODE, Code.DOES_NOT_FIT})
#: Interval at which such a preparation looks for a place, in seconds.
NODE_SECONDS = 1.0


class Loader:
    """Prepares and sizes a model and requests its memory.

    Its tasks put `WeightsRead`, `Prepared`, `PreparationFailed` or `RestartDue` into the inbox.
    """

    def __init__(
        self,
        context: DeploymentContext,
        record: Record,
        preparation: Preparation,
        inbox: Inbox,
        wait_until: float = 0.0,
    ) -> None:
        """
        Args:
            wait_until: until then, a preparation without a node waits for one; by the monotonic clock.
        """
        self._context = context
        self._memory = context.engines[record.snapshot.plan.engine].memory
        self._record = record
        self._preparation = preparation
        self._inbox = inbox
        self._weights: Weights | None = None
        self._runnable: Runnable | None = None
        self._lost_nodes = 0
        """The nodes that were lost since the last complete preparation."""
        self._wait_until = wait_until
        self._last_wait = ""
        self.preparing = False

    @property
    def prepared(self) -> bool:
        """Whether the weights and the environment are available."""
        return self._runnable is not None

    @property
    def python(self) -> Path | None:
        """The engine's interpreter; None: the preparation is not complete."""
        return self._runnable.python if self._runnable else None

    # -- preparation ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Start the preparation of the weights and the environment. It reserves no memory before the size is known."""
        self.preparing = True
        if self._record.snapshot.residency is not None:  # each load sizes the model again
            self._record.change(plan=self._record.snapshot.launch)
        plan = self._record.snapshot.plan
        self._record.add_event(Stage.PLAN, "\n".join(summary(plan, self._memory)))
        self._inbox.spawn(self._make_runnable(plan) if isinstance(plan, SizedPlan) else self._read_weights(plan))

    def size(self, weights: Weights, *, then_run: bool) -> None:
        """Size the plan and reserve its memory, without an await between: no other deployment can reserve it meanwhile.

        `then_run`: continue with the conversion of the weights and the environment.
        """
        self._weights = weights
        snapshot = self._record.snapshot
        try:
            plan = self._sized(snapshot.launch, weights)
        except Problem as problem:
            self._inbox.put(PreparationFailed(problem))
            return
        self._record.change(plan=plan)
        self._record.add_event(Stage.PLAN, slots_and_context(plan, self._memory))
        if snapshot.residency is None:
            self._context.admission.hold(plan.uid, plan)
        if then_run:
            self._inbox.spawn(self._make_runnable(plan))

    def _sized(self, launch: ResolvedLaunch, weights: Weights) -> SizedPlan:
        """The plan of a launch within the free memory of this machine, or of all nodes."""
        placer = self._context.placer
        if placer is not None and weights.nodes is not None:
            return placer.size(launch, weights.path, weights.shape, weights.notes, weights.nodes)
        memory = available(weights.host, self._context.admission.occupancy_for(launch))
        return size_launch(launch, weights.path, weights.shape, memory, self._memory, weights.notes)

    def place_again(self, problem: Problem) -> bool:
        """Prepare the model again on the nodes that fit now, if the preparation has lost its node or has none yet.

        Returns whether it goes on; if not, it has failed with `problem`.
        """
        launch = self._record.snapshot.launch
        placer = self._context.placer
        if not self.preparing or placer is None or not placer.takes(launch):
            return False
        now = time.monotonic()
        if problem.code in LOST_NODE and self._lost_nodes < MAX_LOST_NODES:
            self._lost_nodes += 1
            self._wait_until = max(self._wait_until, now + self._context.settings.node_lost_seconds)
            self._last_wait, seconds = "", 0.0
            content = f"{problem.cause} The model is prepared again on a node that can run it now."
        elif problem.code in NO_PLACE and now < self._wait_until:
            content, seconds = f"waits: {problem.cause}", NODE_SECONDS
        else:
            return False
        self._context.admission.release(launch.uid)
        self._record.change(plan=launch)
        if content != self._last_wait:  # each reason of a wait is told once
            self._last_wait = content
            self._record.add_event(Stage.PLAN, content, level="WARNING")
        self._inbox.spawn(self._read_weights(launch, seconds))
        return True

    def end_wait(self) -> None:
        """Wait for no node any more: a preparation without one fails."""
        self._lost_nodes, self._wait_until, self._last_wait = 0, 0.0, ""

    def note_prepared(self, runnable: Runnable) -> None:
        """Record that the weights and the environment are available."""
        self.preparing, self._runnable = False, runnable
        self.end_wait()
        sized = self._record.snapshot.sized
        if sized is not None:
            self._record.change(plan=replace(sized, path=runnable.path))

    def find_interpreter(self, number: int) -> None:
        """Start a task that finds the interpreter of an engine and then puts `RestartDue`."""
        self._inbox.spawn(self._find_interpreter(number))

    async def _read_weights(self, launch: ResolvedLaunch, seconds: float = 0.0) -> None:
        """Read the weights of a launch, after a pause."""
        await asyncio.sleep(seconds)
        try:
            self._inbox.put(WeightsRead(await self._preparation.read_weights(launch)))
        except Problem as problem:
            self._inbox.put(PreparationFailed(problem))

    async def _make_runnable(self, plan: SizedPlan) -> None:
        try:
            self._inbox.put(Prepared(await self._preparation.make_runnable(plan)))
        except Problem as problem:
            self._inbox.put(PreparationFailed(problem))

    async def _find_interpreter(self, number: int) -> None:
        try:
            self._inbox.put(RestartDue(number, await self._preparation.find_interpreter()))
        except Problem as problem:
            self._inbox.put(PreparationFailed(problem))

    # -- memory -----------------------------------------------------------------------------------------------

    def request_memory(self) -> None:
        """Request memory; the admission replies with `Granted` or `Refused`."""
        request = self._record.snapshot.plan.request
        self._context.admission.ask(
            Candidate(self._record.snapshot.uid, request.on_demand, self._size, request.priority, request.pin)
        )

    def _size(self, host: Host, occupancy: Occupancy) -> SizedPlan:
        """The plan for the available memory. A plan that is already sized, and that users have seen, does not change.

        Raises:
            Problem: ``does_not_fit``.
        """
        snapshot, weights, runnable = self._record.snapshot, self._weights, self._runnable
        if snapshot.sized is not None and (snapshot.residency is None or weights is None):
            return snapshot.sized
        assert weights is not None and runnable is not None  # `request_memory` is called after both are set
        placer = self._context.placer
        if placer is not None and weights.nodes is not None:
            nodes = placer.now(weights.nodes)
            return placer.size(snapshot.launch, runnable.path, weights.shape, weights.notes, nodes)
        available_memory = available(host, with_correction(occupancy, snapshot.launch, self._context.store))
        return size_launch(snapshot.launch, runnable.path, weights.shape, available_memory, self._memory, weights.notes)

    async def place_additional_replica(self, plan: SizedPlan, gpu_idx: tuple[int, ...]) -> Place:
        """The place of an additional replica, if there is enough memory for it in addition to all deployments.

        Raises:
            Problem: 400 ``does_not_fit`` or ``no_such_device``.
        """
        launch = single_replica_launch(plan, gpu_idx)
        placer = self._context.placer
        if placer is not None and placer.takes(launch):
            weights = await self._preparation.read_weights(launch)
            assert weights.nodes is not None  # the placer takes the launch
            probe = placer.size(launch, weights.path, weights.shape, (), weights.nodes)
            check_same_size(plan, probe)
            return probe.place_of(0)
        weights = await self._preparation.read_weights(launch, plan.path)
        # No await may follow until the new plan is in the ledger: no other deployment can reserve this memory.
        available_memory = available(weights.host, self._context.admission.occupancy_of_others(launch))
        probe = size_launch(launch, weights.path, weights.shape, available_memory, self._memory)
        check_same_size(plan, probe)
        return probe.place_of(0)
