"""Handles the messages about replicas for the owner: added, removed, ready, exited."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from xinference.deployments.context import DeploymentContext
from xinference.deployments.inbox import resolve
from xinference.deployments.loader import Loader
from xinference.deployments.measurement import measurement
from xinference.deployments.messages import (
    AddReplica,
    Placed,
    RemoveReplica,
    ReplicaDrained,
    ReplicaExited,
    ReplicaReady,
    RestartDue,
    Waits,
)
from xinference.deployments.record import Record
from xinference.deployments.relocation import Relocation
from xinference.deployments.replica_exit import ReplicaRemoved, Restart, RestartLimitReached, StartFailed
from xinference.deployments.replica_set import ReplicaSet
from xinference.deployments.snapshot import Residency, Stage, Status
from xinference.error_codes import Code
from xinference.errors import Problem, not_found
from xinference.launch.place import with_place
from xinference.launch.plan import SizedPlan
from xinference.planning.replicas import with_replica, without_replica
from xinference.store.connection import WRITE_PROBLEMS


class ReplicaChanges:
    """Handles the messages about replicas.

    A method that returns a `Problem` reports that the replicas as a whole have failed: the first start failed, or no
    replica is started again.
    """

    def __init__(
        self,
        context: DeploymentContext,
        record: Record,
        replicas: ReplicaSet,
        loader: Loader,
        relocation: Relocation,
    ) -> None:
        self._relocation = relocation
        self._context = context
        self._record = record
        self._replicas = replicas
        self._loader = loader

    # -- ready and exited -------------------------------------------------------------------------------------

    def note_ready(self, message: ReplicaReady) -> bool:
        """Record that a process is ready; returns whether the process is still a replica's."""
        if not self._replicas.note_ready(message):
            return False
        snapshot, used = self._record.snapshot, message.used
        if used is not None:
            # The cache of an adopted replica already holds earlier requests, so its use is not comparable.
            if snapshot.sized is not None and not snapshot.was_ready:
                self._context.store.add_measurement(measurement(snapshot.sized, used))
            self._record.change(used=used)
        if not snapshot.was_ready:
            self._record.change(ready_since=time.monotonic())
        self._record.end_launch()
        self._record.change(was_ready=True)
        return True

    async def note_exit(self, message: ReplicaExited) -> Problem | None:
        """Handle the exit of a process: restart the replica, mark it as failed, or complete its removal."""
        snapshot = self._record.snapshot
        unloading = snapshot.residency is Residency.DRAINING or snapshot.unloaded
        outcome = self._replicas.note_exit(message, was_ready=snapshot.was_ready, restartable=not unloading)
        self._record.change()
        match outcome:
            case Restart(_, reason):
                self._context.counts.restarted(snapshot.uid)
                self._record.add_event(Stage.RESTART, reason, level="WARNING")
                self._record.publish_status(
                    Status.READY if self._record.snapshot.ready else Status.RECOVERING, Stage.RESTART
                )
            case RestartLimitReached(problem, is_last):
                self._record.add_event(Stage.FAILED, problem.cause, level="ERROR")
                self._record.publish()
                if is_last:
                    self._context.counts.unloaded(snapshot.uid, "died")
                return problem if is_last else None
            case StartFailed(number, problem, ready_reply):
                return self._note_start_failure(number, problem, ready_reply)
            case ReplicaRemoved(last_problem):
                self._record.publish()
                return last_problem
        return None

    async def start_due(self, message: RestartDue) -> Problem | None:
        """Start a replica that has no process; find the interpreter first if all engines so far were adopted."""
        number, snapshot, plan = message.number, self._record.snapshot, self._record.snapshot.sized
        if snapshot.residency is Residency.DRAINING or not self._replicas.waits_for_start(number):
            return None
        if plan is not None and self._relocation.is_due(plan, number):
            self._relocation.begin(plan, number)
            return None
        python = message.python or self._relocation.python(plan, number) or self._loader.python
        if python is None:
            self._loader.find_interpreter(number)
            return None
        if plan is None:  # the engine was started by another release, and its context is unreadable
            cause = f"The engine of {snapshot.uid} exited, and the settings that it was started with are not known."
            return Problem(Code.ENGINE_DIED, cause, hint="Launch the model again.")
        self._record.add_event(Stage.START, f"starting {plan.engine}")
        failed = await self._start(number, plan, python)
        self._record.publish()
        return failed

    def note_wait(self, message: Waits) -> None:
        """Show why a replica without a process is not started, or show it no more."""
        self._replicas.note_wait(message.number, message.problem)
        self._record.change()

    async def place(self, message: Placed) -> Problem | None:
        """Start a replica at another place, whose memory is reserved from now on."""
        plan = self._record.snapshot.sized
        if plan is None or not self._replicas.waits_for_start(message.number):
            return None
        plan = replace(plan, places=with_place(plan.places, message.number, message.place))
        self._record.change(plan=plan)
        self._context.admission.hold(plan.uid, plan)
        return await self.start_due(RestartDue(message.number))

    async def start_all(self, plan: SizedPlan, python: Path) -> Problem | None:
        """Start the replicas of a plan whose memory is granted."""
        self._record.add_event(Stage.START, f"starting {plan.engine}")
        for number in self._replicas.create_all(plan.request.replica):
            if self._relocation.is_due(plan, number):  # a later load of a model on demand may have other nodes
                self._relocation.begin(plan, number)
                continue
            failed = await self._start(number, plan, self._relocation.python(plan, number) or python)
            if failed is not None:
                return failed
        self._record.publish()
        return None

    async def _start(self, number: int, plan: SizedPlan, python: Path) -> Problem | None:
        try:
            await self._replicas.start(number, plan, python)
        except Problem as problem:
            if problem.code in WRITE_PROBLEMS:
                delay = self._replicas.start_later(number, was_ready=self._record.snapshot.was_ready)
                if delay is not None:
                    again = f"{problem.cause} Replica {number} is started again in {delay:g} s."
                    self._record.add_event(Stage.START, again, level="WARNING")
                    return None
            return self._note_start_failure(number, problem, self._replicas.ready_reply(number))
        return None

    def _note_start_failure(
        self, number: int, problem: Problem, ready_reply: asyncio.Future[None] | None
    ) -> Problem | None:
        if ready_reply is None:
            return problem
        # An additional replica that cannot be started is removed again.
        self._record.add_event(Stage.FAILED, f"replica {number} could not be started: {problem.cause}", level="ERROR")
        self._replicas.discard(number)
        self._record.set_replicas(without_replica(self._running_plan(), number), refusable=False)
        resolve(ready_reply, problem.at(Stage.START))
        self._record.publish()
        return None

    # -- added and removed ------------------------------------------------------------------------------------

    async def add(self, message: AddReplica) -> None:
        """Start an additional replica. The changed request is stored before the reply."""
        try:
            place = await self._loader.place_additional_replica(self._running_plan(), message.gpu_idx)
            number = self._replicas.next_number
            plan = with_replica(self._running_plan(), number, place)
            if message.is_stored:
                self._record.set_replicas(plan)
            else:
                self._record.hold_replicas(plan)
        except Problem as problem:
            resolve(message.number, problem)
            return
        self._replicas.add(number, message.ready)
        self._record.add_event(Stage.START, f"replica {number} is added")
        resolve(message.number, number)
        await self.start_due(RestartDue(number))

    def remove(self, message: RemoveReplica) -> Problem | None:
        """Drain and stop one replica. The changed request is stored before the route is published without it."""
        number = message.number
        try:
            plan = without_replica(self._plan_for_removal(number), number)
            self._record.set_replicas(plan)
        except Problem as problem:
            resolve(message.remaining, problem)
            return None
        self._record.add_event(Stage.STOP, f"replica {number} is removed")
        self._replicas.remove(number, message.remaining, plan.request.replica)
        self._record.publish()
        return self._replicas.last_restart_problem

    def end_removed(self, message: ReplicaDrained) -> None:
        """Stop a removed replica whose last answer has been sent or whose `drain_seconds` have passed."""
        if self._replicas.end_removed(message) and not message.in_time:
            warning = f"replica {message.number} is stopped with answers on their way"
            self._record.add_event(Stage.STOP, warning, level="WARNING")

    def _plan_for_removal(self, number: int) -> SizedPlan:
        """The plan of the running replicas, if the replica with this number may be removed.

        Raises:
            Problem: 404; 409 if the replica is the last one, or the deployment is not running.
        """
        plan = self._running_plan()
        uid, numbers = self._record.snapshot.uid, self._replicas.remaining_numbers
        if number not in numbers:
            listed = ", ".join(map(str, numbers))
            raise not_found(
                f"{uid} has no replica {number}.", hint=f"Its replicas: {listed}.", code=Code.REPLICA_NOT_FOUND
            )
        if len(numbers) == 1:
            hint = f"`xinference terminate --model-uid {uid}` ends the model."
            raise Problem(Code.LAST_REPLICA, f"{number} is the only replica of {uid}.", hint=hint)
        return plan

    def _running_plan(self) -> SizedPlan:
        """The plan of the running replicas.

        Raises:
            Problem: 409, the deployment is not running.
        """
        snapshot = self._record.snapshot
        is_unloading = snapshot.residency is Residency.DRAINING or snapshot.unloaded
        if not self._replicas or snapshot.sized is None or is_unloading:
            raise not_running(snapshot.uid, snapshot.stage)
        return snapshot.sized


def not_running(uid: str, stage: Stage) -> Problem:
    """The refusal to change the replicas of a deployment that is not running."""
    return Problem(
        Code.NOT_RUNNING,
        f"{uid} is not running (stage {stage}).",
        hint="Its replicas can be changed once it is ready.",
    )


def not_loaded(uid: str, stage: Stage) -> Problem:
    """The refusal to unload or restart a deployment that is not loaded."""
    return Problem(
        Code.NOT_RUNNING,
        f"{uid} is not loaded (stage {stage}), so it can't be unloaded or restarted.",
        hint=f"Wait until it is ready, or end it with `xinference terminate {uid}`.",
    )
