"""Handles the messages about replicas for the owner: added, removed, ready, exited."""

from __future__ import annotations

import asyncio
import time

from xinference.deployments.context import DeploymentContext
from xinference.deployments.inbox import (
    AddReplica,
    RemoveReplica,
    ReplicaDrained,
    ReplicaExited,
    ReplicaReady,
    RestartDue,
    answer,
)
from xinference.deployments.loader import Loader
from xinference.deployments.measurement import measurement
from xinference.deployments.record import Record
from xinference.deployments.replica_exit import GivenUp, NotStarted, Removed, Restart
from xinference.deployments.replica_set import ReplicaSet
from xinference.deployments.snapshot import Residency, Stage, Status
from xinference.error_codes import Code
from xinference.errors import Problem, not_found
from xinference.launch.plan import SizedPlan
from xinference.planning.replicas import with_replica, without_replica


class ReplicaChanges:
    """Handles the messages about replicas.

    Where the answer may be a `Problem`, that is why the replicas as a whole have failed: the first start did, or the
    last one was given up.
    """

    def __init__(self, context: DeploymentContext, record: Record, replicas: ReplicaSet, loader: Loader) -> None:
        self._context = context
        self._record = record
        self._replicas = replicas
        self._loader = loader

    # -- ready and dead ---------------------------------------------------------------------------------------

    def note_ready(self, message: ReplicaReady) -> bool:
        """A process answers; whether it is still that of a replica."""
        if not self._replicas.note_ready(message):
            return False
        snapshot, used = self._record.snapshot, message.used
        if used is not None:
            # One that was taken back has a cache full of other things.
            if snapshot.sized is not None and not snapshot.was_ready:
                self._context.store.add_measurement(measurement(snapshot.sized, used))
            self._record.change(used=used)
        if not snapshot.was_ready:
            self._record.change(ready_since=time.monotonic())
        self._record.change(was_ready=True, launching=False)
        return True

    async def note_exit(self, message: ReplicaExited) -> Problem | None:
        """A process has ended: it is started again, given up, or was not wanted any more."""
        snapshot = self._record.snapshot
        unloads = snapshot.residency is Residency.DRAINING
        outcome = self._replicas.note_exit(message, was_ready=snapshot.was_ready, wanted=not unloads)
        self._record.change()
        match outcome:
            case Restart(_, why):
                self._record.say(Stage.RESTART, why, level="WARNING")
                self._record.show(Status.READY if self._record.snapshot.ready else Status.RECOVERING, Stage.RESTART)
            case GivenUp(problem, last):
                self._record.say(Stage.FAILED, problem.cause, level="ERROR")
                self._record.publish()
                return problem if last else None
            case NotStarted(number, problem, added):
                return self._note_not_started(number, problem, added)
            case Removed(last):
                self._record.publish()
                return last
        return None

    def start_due(self, message: RestartDue) -> Problem | None:
        """Start a replica that has no process. An engine that was taken back had no need of an interpreter."""
        number, snapshot, plan = message.number, self._record.snapshot, self._record.snapshot.sized
        if snapshot.residency is Residency.DRAINING or not self._replicas.waits_for_start(number):
            return None
        python = message.python or self._loader.python
        if python is None:
            self._loader.find_interpreter(number)
            return None
        if plan is None:  # an engine of another release, whose context could not be read
            cause = f"The engine of {snapshot.uid} ended, and what it was started with is not known."
            return Problem(Code.ENGINE_DIED, cause, hint="Launch it again.")
        self._record.say(Stage.START, f"starting {plan.engine}")
        try:
            self._replicas.start(number, plan, python)
        except Problem as problem:
            return self._note_not_started(number, problem, self._replicas.added(number))
        self._record.publish()
        return None

    def _note_not_started(self, number: int, problem: Problem, added: asyncio.Future[None] | None) -> Problem | None:
        if added is None:
            return problem
        # A replica that was added and could not be started is not wanted any more.
        self._record.say(Stage.FAILED, f"replica {number} could not be started: {problem.cause}", level="ERROR")
        self._replicas.take_back(number)
        self._record.set_replicas(without_replica(self._running_plan(), number))
        answer(added, problem.at(Stage.START))
        self._record.publish()
        return None

    # -- added and removed ------------------------------------------------------------------------------------

    async def add(self, message: AddReplica) -> None:
        """Start one replica more; its row is written before the reply."""
        try:
            group = await self._loader.place_one_more(self._running_plan(), message.gpu_idx)
            number = self._replicas.next_number
            self._record.set_replicas(with_replica(self._running_plan(), number, group))
        except Problem as problem:
            answer(message.number, problem)
            return
        self._replicas.add(number, message.ready)
        self._record.say(Stage.START, f"replica {number} is added")
        answer(message.number, number)
        self.start_due(RestartDue(number))

    def remove(self, message: RemoveReplica) -> Problem | None:
        """End one replica after its last answer; its row is written before any request is kept from it."""
        number = message.number
        try:
            plan = without_replica(self._plan_of(number), number)
            self._record.set_replicas(plan)
        except Problem as problem:
            answer(message.left, problem)
            return None
        self._record.say(Stage.STOP, f"replica {number} is removed")
        self._replicas.remove(number, message.left, plan.request.replica)
        self._record.publish()
        return self._replicas.last_lost

    def end_removed(self, message: ReplicaDrained) -> None:
        """The last answer of a removed replica has been sent, or its time is over."""
        if self._replicas.end_removed(message) and not message.in_time:
            said = f"replica {message.number} is ended with answers on their way"
            self._record.say(Stage.STOP, said, level="WARNING")

    def _plan_of(self, number: int) -> SizedPlan:
        """The plan, if the replica with this number may be removed.

        Raises:
            Problem: 404, 409 it is the last one or it is not the time.
        """
        plan = self._running_plan()
        uid, staying = self._record.snapshot.uid, self._replicas.staying
        if number not in staying:
            there = ", ".join(map(str, staying))
            raise not_found(f"{uid} has no replica {number}.", hint=f"There are: {there}.", code=Code.REPLICA_NOT_FOUND)
        if len(staying) == 1:
            hint = f"`xinference terminate --model-uid {uid}` ends the model."
            raise Problem(Code.LAST_REPLICA, f"{number} is the only replica of {uid}.", hint=hint)
        return plan

    def _running_plan(self) -> SizedPlan:
        """The plan of what runs.

        Raises:
            Problem: 409, nothing runs.
        """
        snapshot = self._record.snapshot
        if not self._replicas or snapshot.sized is None or snapshot.residency is Residency.DRAINING:
            raise not_running(snapshot.uid, snapshot.stage)
        return snapshot.sized


def not_running(uid: str, stage: Stage) -> Problem:
    """The refusal to change the replicas of a deployment that has none."""
    return Problem(
        Code.NOT_RUNNING,
        f"{uid} is not running (stage {stage}).",
        hint="Its replicas can be changed once it is ready.",
    )
