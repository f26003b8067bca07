"""The owner task of one deployment: handles its messages and is the only code that changes its state."""

from __future__ import annotations

import asyncio
import logging
import time

from xinference.deployments.context import DeploymentContext, Ending
from xinference.deployments.drain import drain
from xinference.deployments.inbox import (
    Abandoned,
    AddReplica,
    Begin,
    Defect,
    Drained,
    End,
    Evict,
    Granted,
    Inbox,
    Message,
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
    StageBegan,
    WeightsRead,
    answer,
)
from xinference.deployments.loader import Loader
from xinference.deployments.on_demand import Action, DemandCounter, next_residency
from xinference.deployments.record import Record
from xinference.deployments.replica_changes import ReplicaChanges, not_running
from xinference.deployments.replica_set import ReplicaSet
from xinference.deployments.snapshot import Residency, Stage, Status
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.plan import SizedPlan

log = logging.getLogger(__name__)
#: Refusals of a load that say nothing of the model itself.
_NOT_ITS_FAULT = frozenset({Code.NO_ROOM, Code.DOES_NOT_FIT})
#: Actions before which the engines are ended.
_UNLOADING = frozenset({Action.UNLOAD, Action.RELOAD, Action.REFUSE})


class Owner:
    """The life of one deployment."""

    def __init__(
        self,
        context: DeploymentContext,
        inbox: Inbox,
        record: Record,
        replicas: ReplicaSet,
        loader: Loader,
        demand: DemandCounter,
    ) -> None:
        self._context = context
        self._inbox = inbox
        self._record = record
        self._replicas = replicas
        self._loader = loader
        self._changes = ReplicaChanges(context, record, replicas, loader)
        self._demand = demand
        self._adopted = False
        self._failures = 0
        """Loads in a row that failed by the model's own fault."""
        self._load_began = record.snapshot.created

    async def run(self) -> None:
        """One message after the other, until the end."""
        try:
            while not isinstance(message := await self._inbox.get(), End):
                await self._handle_or_fail(message)
            await self._end(message.how)
        finally:
            await self._inbox.end_helpers()
            self._context.admission.release(self._record.snapshot.uid)
            for message in self._inbox.rest():  # nobody may wait for the reply of an owner that has ended
                self._refuse_request(message)

    async def _handle_or_fail(self, message: Message) -> None:
        try:
            if self._record.snapshot.problem is None:
                await self._handle(message)
            else:
                self._refuse_request(message)
        except Problem as problem:
            await self._fail_or_log(problem, message)
        except Exception as error:
            # A defect of ours must end as a FAILED row, not as a silent dead task.
            log.exception("deployment %s", self._record.snapshot.uid)
            cause = f"A defect in xinference: {error!r}."
            await self._fail_or_log(Problem(Code.INTERNAL_ERROR, cause), message)

    async def _handle(self, message: Message) -> None:
        match message:
            case Begin(adopted):
                await self._take_up(adopted)
            case StageBegan(stage, content):
                self._record.show(Status.LOADING, stage)
                if content is not None:
                    self._record.say(stage, content)
            case WeightsRead(weights):
                self._loader.size(weights, then_run=not self._replicas)
            case Prepared(runnable):
                self._loader.note_prepared(runnable)
                self._note_launched()
                await self._step(message)
            case PreparationFailed():
                self._loader.preparing = False
                await self._step(message)
            case Requested(refusals) if refusals != self._record.snapshot.refusals:
                pass  # those who asked before the last refusal are told by it
            case Granted() | Refused() | Requested() | Abandoned() | Evict() | Drained() | ReplicasFailed():
                await self._step(message)
            case ReplicaReady():
                await self._note_ready(message)
            case ReplicaChanged() | ReplicaExited() | RestartDue() | ReplicaDrained() | AddReplica() | RemoveReplica():
                await self._change_replicas(message)
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
                failed = self._changes.start_due(message)
            case ReplicaDrained():
                self._changes.end_removed(message)
            case AddReplica():
                await self._changes.add(message)
            case RemoveReplica():
                failed = self._changes.remove(message)
        if failed is not None:
            await self._step(ReplicasFailed(failed))

    # -- begin and end ----------------------------------------------------------------------------------------

    async def _take_up(self, reply: asyncio.Future[int]) -> None:
        adopted, on_demand = await self._adopt(), self._record.snapshot.residency is not None
        answer(reply, adopted)
        if not adopted:
            self._record.change(launching=self._record.snapshot.launching or on_demand)
            self._loader.prepare()
            return
        plan = self._record.snapshot.plan
        self._record.say(Stage.START, f"took back {adopted} running replica(s) of an earlier server")
        if isinstance(plan, SizedPlan):
            self._context.admission.hold(plan.uid, plan)
        if on_demand:
            self._record.change(residency=Residency.LOADING)
        elif not isinstance(plan, SizedPlan):
            self._loader.prepare()
        self._record.show(Status.LOADING, Stage.START)
        await self._replicas.resume(plan)
        self._record.change()

    async def _adopt(self) -> int:
        """Take back what an earlier server left running; the number of its replicas."""
        self._adopted = True
        plan, adopted = await self._replicas.adopt(self._record.snapshot.plan)
        self._record.change(plan=plan)
        return adopted

    async def _end(self, how: Ending) -> None:
        if not self._adopted:
            await self._adopt()
        self._record.change(ending=True, launching=False)
        if how == "detach":  # before the helpers are cancelled: that would end an engine which is still loading
            await self._replicas.detach_all()
            return
        self._record.show(Status.TERMINATING, Stage.STOP)
        await self._replicas.stop_all()
        self._record.change()

    async def _fail_or_log(self, problem: Problem, message: Message) -> None:
        """Fail by a message, which is answered then.

        A failure that can't be written, as on a full disk, must not keep the owner from the message to end.
        """
        try:
            await self._fail(problem)
        except Exception:
            log.exception("the failure of deployment %s is not stored", self._record.snapshot.uid)
        self._refuse_request(message)

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
            self._record.fail(problem)

    def _refuse_request(self, message: Message) -> None:
        """It has failed or ended: its replicas can't be changed, and nothing else is done."""
        snapshot = self._record.snapshot
        match message:
            case Begin():
                answer(message.adopted, 0)
            case AddReplica():
                answer(message.number, not_running(snapshot.uid, snapshot.stage))
            case RemoveReplica():
                answer(message.left, not_running(snapshot.uid, snapshot.stage))

    # -- steps ------------------------------------------------------------------------------------------------

    async def _step(self, message: Message) -> None:
        """One step of a model on demand, or of one that is loaded once."""
        residency = self._record.snapshot.residency
        if residency is None:
            await self._step_once(message)
            return
        waiting = self._demand.waiting
        if isinstance(message, Evict) and residency is Residency.LOADED:
            await self._context.load.settled()
            # From here to the new table there is no other turn of the loop: nobody comes who is not counted.
            replica_ids = self._record.snapshot.replica_ids
            waiting = self._demand.waiting + sum(self._context.load.at(name) for name in replica_ids)
        residency, action = next_residency(residency, message, waiting)
        if action in _UNLOADING:
            await self._unload()
        self._record.change(residency=residency)
        await self._act(action, message)

    async def _step_once(self, message: Message) -> None:
        """A deployment that is not on demand is loaded once; whatever fails, fails the launch."""
        match message:
            case Prepared():
                self._loader.ask_for_memory()
            case Granted():
                await self._start(message)
            case PreparationFailed(problem) | Refused(problem) | ReplicasFailed(problem):
                raise problem

    async def _act(self, action: Action, message: Message) -> None:
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
                self._record.say(Stage.UNLOAD, reason)
                self._record.show(Status.UNLOADING, Stage.UNLOAD)
                self._inbox.spawn(self._drain(self._record.snapshot.replica_ids))
            case Action.UNLOAD | Action.RELOAD, _:
                self._failures = 0
                self._rest("unloaded")
                if action is Action.RELOAD:
                    self._load()
            case Action.REST, _:
                self._rest("nobody waits for it any more")
            case Action.RELEASE, _:
                self._context.admission.release(self._record.snapshot.uid)
            case Action.REFUSE, PreparationFailed(problem) | Refused(problem) | ReplicasFailed(problem):
                self._refuse(problem)

    # -- loaded ----------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Ask for memory, after the preparation if there was none yet."""
        if self._loader.preparing:
            return
        self._load_began = time.time()
        self._record.change(was_ready=False)
        self._record.show(Status.LOADING, Stage.ROOM)
        if self._loader.prepared:
            self._loader.ask_for_memory()
        else:
            self._loader.prepare()

    async def _start(self, granted: Granted) -> None:
        """Start the engines in the memory that was granted."""
        python = self._loader.python
        assert python is not None
        self._record.change(plan=granted.plan)
        self._record.show(Status.LOADING, Stage.START)
        self._record.say(Stage.START, f"starting {granted.plan.engine}")
        try:
            self._replicas.start_all(granted.plan, python)
        except Problem as problem:
            await self._step(ReplicasFailed(problem))
            return
        self._record.publish()

    def _note_launched(self) -> None:
        """A model on demand is launched once it can be loaded."""
        snapshot = self._record.snapshot
        if snapshot.residency is not None and snapshot.launching:
            self._record.change(launching=False)
            self._record.show(Status.UNLOADED, Stage.UNLOADED)
            self._record.say_ready(Stage.UNLOADED, "ready: the first request loads it")

    async def _note_ready(self, message: ReplicaReady) -> None:
        first = not self._record.snapshot.was_ready
        if not self._changes.note_ready(message):
            return
        await self._step(message)
        if self._record.snapshot.residency is not Residency.DRAINING:
            self._record.show(Status.READY, Stage.READY)
        took = f"ready after {time.time() - self._load_began:.1f} s"
        self._record.say_ready(Stage.READY, took if first else "ready again")

    # -- unloaded --------------------------------------------------------------------------------------------

    async def _drain(self, replica_ids: tuple[str, ...]) -> None:
        """Wait for the last answer, however long that takes: nothing in use is evicted."""
        await drain(self._context.load, lambda: replica_ids)
        self._inbox.put(Drained())

    async def _unload(self) -> None:
        """End the engines, and give their memory back; until that is done it is on its way out."""
        if self._replicas:
            self._record.publish(residency=Residency.DRAINING)
        await self._replicas.stop_all()
        self._context.admission.release(self._record.snapshot.uid)
        self._record.change(used=None)

    def _refuse(self, problem: Problem) -> None:
        """Tell those who wait that this load came to nothing; the next request tries again, within limits.

        Raises:
            Problem: its launch has failed by it, or it failed too often.
        """
        if self._record.snapshot.launching:
            raise problem
        if problem.code not in _NOT_ITS_FAULT:
            self._failures += 1
            if self._failures > self._context.settings.restart_limit:
                raise problem
        # A request gets a 503 for whatever stopped its load: the next one may find another state of the machine.
        refusal = problem if problem.status == 503 else problem.replace(code=Code.LOAD_FAILED)
        self._record.change(refusals=self._record.snapshot.refusals + 1, refusal=refusal)
        self._rest(f"not loaded: {problem.cause}")

    def _rest(self, content: str) -> None:
        """Nothing of it runs."""
        self._record.show(Status.UNLOADED, Stage.UNLOADED)
        self._record.say(Stage.UNLOADED, content)
