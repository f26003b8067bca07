"""The owner task of one deployment: handles its messages and is the only code that changes its state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from xinference.deployments.context import DeploymentContext, Ending
from xinference.deployments.inbox import Inbox, resolve
from xinference.deployments.loader import Loader
from xinference.deployments.messages import (
    Abandoned,
    AddReplica,
    Begin,
    Defect,
    Drained,
    End,
    Evict,
    Granted,
    Message,
    Placed,
    PreparationFailed,
    Prepared,
    Refused,
    RemoveReplica,
    ReplicaChanged,
    ReplicaDrained,
    ReplicaExited,
    ReplicaReady,
    ReplicasFailed,
    Requested,
    RestartDue,
    SetAliases,
    SetTerms,
    StageBegan,
    Unload,
    Waits,
    WeightsRead,
)
from xinference.deployments.on_demand import Action, DemandCounter, next_residency
from xinference.deployments.record import Record
from xinference.deployments.relocation import Relocation
from xinference.deployments.replica_changes import ReplicaChanges, not_loaded, not_running
from xinference.deployments.replica_set import ReplicaSet
from xinference.deployments.snapshot import Residency, Stage, Status
from xinference.deployments.unloads import Unloads
from xinference.error_codes import Code
from xinference.errors import Problem, defect
from xinference.launch.plan import SizedPlan
from xinference.planning.admission import IDLE_FOR
from xinference.store.connection import WRITE_PROBLEMS

log = logging.getLogger(__name__)
#: Refusals for lack of memory, or because nothing can be written; they do not count as failures of the model.
_OTHERS_FAULTS = frozenset({Code.NO_ROOM, Code.DOES_NOT_FIT}) | WRITE_PROBLEMS
#: Messages of a load, which an unloaded model ignores: they were sent before it was unloaded.
_OF_A_LOAD = (
    StageBegan, WeightsRead, Prepared, PreparationFailed, Granted, Refused, ReplicaReady, RestartDue, Waits, Placed
)  # fmt: skip
#: Actions before which the engines are stopped.
_UNLOADING = frozenset({Action.UNLOAD, Action.RELOAD, Action.REFUSE})


class Owner:
    """Handles the messages of one deployment, one after the other."""

    def __init__(
        self,
        context: DeploymentContext,
        inbox: Inbox,
        record: Record,
        replicas: ReplicaSet,
        loader: Loader,
        demand: DemandCounter,
        relocation: Relocation,
    ) -> None:
        self._context = context
        self._inbox = inbox
        self._record = record
        self._replicas = replicas
        self._loader = loader
        self._changes = ReplicaChanges(context, record, replicas, loader, relocation)
        self._demand = demand
        self._adopted = False
        self._failures = 0
        """Consecutive loads that failed for a reason of the model's own."""
        self._load_started = time.monotonic()
        self._unloads = Unloads(context, inbox, record, replicas)

    async def run(self) -> None:
        """Handle messages until `End`."""
        try:
            while not isinstance(message := await self._inbox.get(), End):
                await self._handle_or_fail(message)
            await self._end(message.how)
        finally:
            await self._inbox.end_helpers()
            self._context.admission.release(self._record.snapshot.uid)
            for message in self._inbox.take_all():  # no caller may wait for the reply of an owner that has ended
                self._resolve_replies(message)

    async def _handle_or_fail(self, message: Message) -> None:
        try:
            if self._record.snapshot.problem is None:
                await self._handle(message)
            else:
                self._resolve_replies(message)
        except Problem as problem:
            await self._fail_or_log(problem, message)
        except Exception as error:
            # A defect of xinference must result in a failed deployment, not in a task that ends unnoticed.
            log.exception("deployment %s", self._record.snapshot.uid)
            await self._fail_or_log(defect(error), message)

    async def _handle(self, message: Message) -> None:
        if self._record.snapshot.unloaded and isinstance(message, _OF_A_LOAD):
            return
        match message:
            case Begin(adopted):
                await self._restore(adopted)
            case StageBegan(stage, content):
                self._record.publish_status(Status.LOADING, stage)
                if content is not None:
                    self._record.add_event(stage, content)
            case WeightsRead(weights):
                self._loader.size(weights, then_run=not self._replicas)
            case Prepared(runnable):
                self._loader.note_prepared(runnable)
                self._note_launched()
                await self._advance(message)
            case PreparationFailed(problem) if self._loader.place_again(problem):
                pass
            case PreparationFailed():
                self._loader.preparing = False
                await self._advance(message)
            case Requested(refusals) if refusals != self._record.snapshot.refusals:
                pass  # the last refusal already ends this request
            case Granted() | Refused() | Requested() | Abandoned() | Evict() | Drained() | ReplicasFailed():
                await self._advance(message)
            case ReplicaReady():
                await self._note_ready(message)
            case ReplicaChanged() | ReplicaExited() | RestartDue() | Waits() | Placed() | ReplicaDrained():
                await self._change_replicas(message)
            case AddReplica() | RemoveReplica():
                await self._change_replicas(message)
            case Unload():
                self._unloads.begin(message)
            case SetAliases():
                self._store(message.done, lambda: self._record.set_aliases(message.aliases))
            case SetTerms():
                self._store(message.done, lambda: self._record.set_terms(message.changes))
            case Defect(error):
                raise error

    async def _change_replicas(self, message: Message) -> None:
        failed: Problem | None = None
        match message:
            case ReplicaChanged():
                self._record.publish()
            case ReplicaExited():
                failed = await self._changes.note_exit(message)
            case RestartDue():
                failed = await self._changes.start_due(message)
            case Waits():
                self._changes.note_wait(message)
            case Placed():
                failed = await self._changes.place(message)
            case ReplicaDrained():
                self._changes.end_removed(message)
            case AddReplica():
                await self._changes.add(message)
            case RemoveReplica():
                failed = self._changes.remove(message)
        if failed is not None:
            await self._advance(ReplicasFailed(failed))

    # -- begin and end ----------------------------------------------------------------------------------------

    async def _restore(self, reply: asyncio.Future[int]) -> None:
        adopted, on_demand = await self._adopt(), self._record.snapshot.residency is not None
        resolve(reply, adopted)
        if self._record.snapshot.unloaded:  # the earlier server was killed while it waited for the last answers
            await self._replicas.stop_all()
            self._record.publish()
            return
        if not adopted:
            self._record.change(launching=self._record.snapshot.launching or on_demand)
            self._loader.prepare()
            return
        plan = self._record.snapshot.plan
        self._record.add_event(Stage.START, f"adopted {adopted} running replica(s) of an earlier server")
        if isinstance(plan, SizedPlan):
            self._context.admission.hold(plan.uid, plan)
        if on_demand:
            self._record.change(residency=Residency.LOADING)
            self._loader.end_wait()  # it is prepared by a later load
        elif not isinstance(plan, SizedPlan):
            self._loader.prepare()
        self._record.publish_status(Status.LOADING, Stage.START)
        await self._replicas.resume(plan)
        self._record.change()

    async def _adopt(self) -> int:
        """Adopt the replicas that an earlier server left running; returns their number."""
        self._adopted = True
        plan, adopted = await self._replicas.adopt(self._record.snapshot.plan)
        self._record.change(plan=plan)
        return adopted

    async def _end(self, how: Ending) -> None:
        if not self._adopted:
            await self._adopt()
        self._record.change(ending=True, launching=False)
        if how == "detach":  # before the helpers are cancelled: that would stop an engine which is still loading
            await self._replicas.detach_all()
            return
        self._record.publish_status(Status.TERMINATING, Stage.STOP)
        await self._replicas.stop_all()
        self._record.change()
        self._unloads.resolve(None)

    async def _fail_or_log(self, problem: Problem, message: Message) -> None:
        """Mark the deployment as failed, and refuse the message.

        If the failure cannot be stored, for example on a full disk, the owner still handles later messages.
        """
        try:
            await self._fail(problem)
        except Exception:  # a defect, or a store that takes nothing: the owner has to handle `End` in any case
            log.exception("the failure of deployment %s is not stored", self._record.snapshot.uid)
        self._resolve_replies(message)

    async def _fail(self, problem: Problem) -> None:
        snapshot = self._record.snapshot
        problem = problem.at(snapshot.stage)
        self._record.change(problem=problem, launching=False)
        try:
            await self._replicas.stop_all()
        finally:
            await self._inbox.end_helpers()
            self._context.admission.release(snapshot.uid)
            self._record.change(residency=None if snapshot.residency is None else Residency.UNLOADED)
            self._unloads.resolve(problem)
            self._record.fail(problem)

    def _resolve_replies(self, message: Message) -> None:
        """Resolve the replies of a message that is not handled: the deployment has failed or ended."""
        snapshot = self._record.snapshot
        match message:
            case Begin():
                resolve(message.adopted, 0)
            case AddReplica():
                resolve(message.number, not_running(snapshot.uid, snapshot.stage))
            case RemoveReplica():
                resolve(message.remaining, not_running(snapshot.uid, snapshot.stage))
            case SetAliases() | SetTerms():
                resolve(message.done, not_running(snapshot.uid, snapshot.stage))
            case Unload():
                resolve(message.done, not_loaded(snapshot.uid, snapshot.stage))

    # -- transitions ------------------------------------------------------------------------------------------

    async def _advance(self, message: Message) -> None:
        """Perform the transition that a message causes."""
        residency = self._record.snapshot.residency
        if residency is None:
            await self._advance_launch(message)
            return
        waiting = self._demand.waiting
        if isinstance(message, Evict) and residency is Residency.LOADED:
            await self._context.load.settled()
            # No await may follow until the new table is published: every request is in these counts.
            replica_ids = self._record.snapshot.replica_ids
            waiting = self._demand.waiting + sum(self._context.load.at(name) for name in replica_ids)
        residency, action = next_residency(residency, message, waiting)
        if action in _UNLOADING:
            await self._unloads.stop()
        self._record.change(residency=residency)
        await self._perform(action, message)

    async def _advance_launch(self, message: Message) -> None:
        """Advance a launch that is not on demand: it is loaded once, and each failure fails the deployment."""
        if self._record.snapshot.unloaded:
            if isinstance(message, Drained):
                await self._unloads.stop()
                self._record.change(was_ready=False)
                self._unloads.publish("unloaded")
            return
        match message:
            case Prepared():
                self._loader.request_memory()
            case Granted():
                await self._start(message)
            case PreparationFailed(problem) | Refused(problem) | ReplicasFailed(problem):
                raise problem

    async def _perform(self, action: Action, message: Message) -> None:
        match action, message:
            case Action.LOAD, _:
                self._load()
            case Action.WITHDRAW, _:
                self._context.admission.withdraw(self._record.snapshot.uid)
            case Action.START, Granted():
                await self._start(message)
            case Action.DECLINE, _:
                self._context.admission.declined(self._record.snapshot.uid)
            case Action.DRAIN, Evict(reason):
                self._context.counts.unloaded(
                    self._record.snapshot.uid, "idle" if reason.startswith(IDLE_FOR) else "evicted"
                )
                self._record.add_event(Stage.UNLOAD, reason)
                self._record.publish_status(Status.UNLOADING, Stage.UNLOAD)
                self._unloads.drain(self._record.snapshot.replica_ids)
            case Action.UNLOAD | Action.RELOAD, _:
                self._failures = 0
                self._unloads.publish("unloaded")
                if action is Action.RELOAD:
                    self._load()
            case Action.SHOW_UNLOADED, _:
                self._unloads.publish("no request waits for the model any more")
            case Action.RELEASE, _:
                self._context.admission.release(self._record.snapshot.uid)
            case Action.REFUSE, PreparationFailed(problem) | Refused(problem) | ReplicasFailed(problem):
                self._refuse_load(problem)

    # -- load -------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Request memory; prepare the model first if it is not prepared."""
        if self._loader.preparing:
            return
        self._load_started = time.monotonic()
        self._record.change(was_ready=False)
        self._record.publish_status(Status.LOADING, Stage.ROOM)
        if self._loader.prepared:
            self._loader.request_memory()
        else:
            self._loader.prepare()

    async def _start(self, granted: Granted) -> None:
        """Start the engines with the granted plan."""
        python = self._loader.python
        assert python is not None
        self._record.change(plan=granted.plan)
        self._record.publish_status(Status.LOADING, Stage.START)
        failed = await self._changes.start_all(granted.plan, python)
        if failed is not None:
            await self._advance(ReplicasFailed(failed))

    def _note_launched(self) -> None:
        """Complete the launch of an on-demand model: it can be loaded now."""
        snapshot = self._record.snapshot
        if snapshot.residency is not None and snapshot.launching:
            self._record.end_launch()
            self._record.publish_status(Status.UNLOADED, Stage.UNLOADED)
            self._record.add_ready_event(Stage.UNLOADED, "ready: the first request loads it")

    async def _note_ready(self, message: ReplicaReady) -> None:
        first = not self._record.snapshot.was_ready
        if not self._changes.note_ready(message):
            return
        await self._advance(message)
        if self._record.snapshot.residency is not Residency.DRAINING:
            self._record.publish_status(Status.READY, Stage.READY)
        seconds = time.monotonic() - self._load_started
        if first:
            self._context.counts.loaded(self._record.snapshot.uid, seconds)
        content = f"ready after {seconds:.1f} s"
        self._record.add_ready_event(Stage.READY, content if first else "ready again")

    def _store(self, done: asyncio.Future[None], change: Callable[[], None]) -> None:
        """Make a change that is stored, and reply with its result."""
        try:
            change()
        except Problem as problem:
            resolve(done, problem)
            return
        resolve(done, None)

    def _refuse_load(self, problem: Problem) -> None:
        """End the wait of the requests with the reason why the load failed. The next request starts a new load.

        Raises:
            Problem: the launch was not complete, or the number of consecutive failures exceeds the restart limit.
        """
        if self._record.snapshot.launching:
            raise problem
        if problem.code not in _OTHERS_FAULTS:
            self._failures += 1
            if self._failures > self._context.settings.restart_limit:
                raise problem
        # Each failed load is a 503 for its requests: the state of the machine may be different at the next request.
        refusal = problem if problem.status == 503 else problem.replace(code=Code.LOAD_FAILED)
        self._record.change(refusals=self._record.snapshot.refusals + 1, refusal=refusal)
        self._unloads.publish(f"not loaded: {problem.cause}")
