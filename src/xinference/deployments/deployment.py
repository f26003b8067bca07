"""A deployment for its callers: a snapshot to read, and methods that send messages to its owner."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xinference.deployments import views
from xinference.deployments.context import DeploymentContext, Ending
from xinference.deployments.engine_starter import EngineStarter, Starter
from xinference.deployments.inbox import Inbox
from xinference.deployments.loader import Loader
from xinference.deployments.messages import (
    Abandoned,
    AddReplica,
    Begin,
    End,
    Evict,
    Granted,
    Message,
    Refused,
    RemoveReplica,
    Requested,
    SetAliases,
    SetTerms,
    StageBegan,
    Unload,
)
from xinference.deployments.on_demand import DemandCounter, terms_of
from xinference.deployments.owner import Owner
from xinference.deployments.preparation import Preparation
from xinference.deployments.progress import progress
from xinference.deployments.record import Record
from xinference.deployments.relocation import Relocation
from xinference.deployments.replica_changes import not_running
from xinference.deployments.replica_set import ReplicaSet
from xinference.deployments.snapshot import DeploymentSnapshot, Residency, Stage, Status
from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.nodes.node import ReplicaLike
from xinference.process.log_links import replica_name
from xinference.process.node_log import EngineLog
from xinference.routing.table import Route


class Deployment:
    """A launched model with its replicas, owned by one asyncio task. Implements `MemoryHolder`.

    Public methods put a message into the owner's inbox or wait for its reply; only the owner changes state.
    `snapshot` may be read at any time. Helper tasks (the preparation, one supervisor per replica, a drain) only put
    messages, too.
    """

    def __init__(
        self,
        plan: LaunchPlan,
        context: DeploymentContext,
        created: float,
        problem: Problem | None = None,
        *,
        adopted: Mapping[str, ReplicaLike] = MappingProxyType({}),
        starter: Starter | None = None,
        preparation: Preparation | None = None,
        ran: bool = False,
        unloaded: bool = False,
        restarting: bool = False,
        restored: bool = False,
    ) -> None:
        """
        Args:
            problem: the stored problem of a deployment that failed under an earlier server.
            adopted: its running replicas by their ids.
            ran: it has been ready before.
            unloaded: a user has unloaded it.
            restarting: it replaces a deployment of the same uid, whose requests may wait for it.
            restored: an earlier server has launched it; the nodes of a cluster may come later than this one.
        """
        settings, store = context.settings, context.store
        self._context = context
        self._engine = engine = context.engines[plan.engine]
        self._inbox = inbox = Inbox()
        preparation = preparation or Preparation(
            context, plan.uid, plan.engine, lambda *stage: inbox.put(StageBegan(*stage))
        )
        starter = starter or EngineStarter(engine, context.nodes, adopted, context.settings, preparation.prepared)
        first = _first_snapshot(plan, context, created, problem)
        first = replace(first, ran=ran, restarting=restarting)
        if unloaded and problem is None and not plan.request.on_demand:
            first = replace(first, unloaded=True, launching=False, status=Status.UNLOADED, stage=Stage.UNLOADED)
        replicas = ReplicaSet(plan.uid, engine, starter, settings, store, context.load, inbox)
        self._record = Record(context, engine, replicas, first)
        loader = Loader(context, self._record, preparation, inbox, _wait_until(context, ran=ran) if restored else 0.0)
        relocation = Relocation(context, self._record, loader, preparation, inbox)
        self._demand = DemandCounter(settings.on_demand_queue, lambda: inbox.put(Abandoned()))
        self._owner = Owner(context, inbox, self._record, replicas, loader, self._demand, relocation)
        self._task: asyncio.Task[None] | None = None
        if problem is None and isinstance(plan, SizedPlan) and not plan.request.on_demand and not unloaded:
            context.admission.hold(plan.uid, plan)

    # -- state, for all readers -------------------------------------------------------------------------------

    @property
    def snapshot(self) -> DeploymentSnapshot:
        """The current state."""
        return self._record.snapshot

    @property
    def uid(self) -> str:
        return self.snapshot.uid

    @property
    def plan(self) -> LaunchPlan:
        return self.snapshot.plan

    @property
    def created(self) -> float:
        return self.snapshot.created

    @property
    def status(self) -> Status:
        return self.snapshot.status

    @property
    def problem(self) -> Problem | None:
        return self.snapshot.problem

    @property
    def ready(self) -> bool:
        return self.snapshot.ready

    @property
    def launching(self) -> bool:
        """Whether the launch is not complete yet."""
        return self.snapshot.launching

    @property
    def description(self) -> dict[str, Any]:
        return views.description(self.snapshot, self._engine)

    @property
    def instance(self) -> dict[str, Any]:
        return views.instance(self.snapshot, self._engine)

    @property
    def replicas(self) -> list[dict[str, Any]]:
        return views.replica_entries(self.snapshot)

    @property
    def route(self) -> Route:
        return views.route(self.snapshot, self._engine)

    @property
    def progress(self) -> dict[str, Any]:
        """The progress of the launch in the form of the API."""
        stage = Stage.READY if self.ready else self.snapshot.stage
        failed = (self.problem.stage or Stage.START) if self.problem else None
        return progress(stage, failed, self._context.events.transfer(self.uid), self.replicas, time.time())

    @property
    def log_paths(self) -> list[Path]:
        """The log files of this machine: of the running replicas, or that of the last replica if none runs."""
        return [log for log in self.replica_logs.values() if isinstance(log, Path)]

    @property
    def replica_logs(self) -> dict[str, EngineLog]:
        """Name of a replica -> its log: of the running replicas, or that of the last replica if none runs."""
        running = {
            replica_name(self.uid, replica.number): replica.process.log
            for replica in self.snapshot.replicas
            if replica.process is not None
        }
        last = self.snapshot.last_log
        return running or ({self.uid: last} if last else {})

    @property
    def waiting(self) -> int:
        """The number of requests that wait for the model to be loaded."""
        return self._demand.waiting

    # -- messages to the owner --------------------------------------------------------------------------------

    def begin(self) -> asyncio.Future[int]:
        """Start the owner task, which adopts or prepares the replicas.

        The result of the future is the number of adopted replicas.
        """
        adopted = asyncio.get_running_loop().create_future()
        self._inbox.put(Begin(adopted))
        self._task = asyncio.create_task(self._owner.run(), name=f"deployment {self.uid}")
        return adopted

    async def end(self, how: Ending) -> None:
        """End the owner task. ``terminate`` and ``stop`` stop the engines; ``detach`` lets them run for a later server.

        Without an earlier `begin`, this stops or detaches the replicas that an earlier server left running.

        Raises:
            Problem: the store cannot be written.
        """
        self._inbox.put(End(how))
        if self._task is None:
            self._task = asyncio.create_task(self._owner.run(), name=f"deployment {self.uid}")
        await asyncio.wait({self._task})
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error

    @contextlib.contextmanager
    def wait(self, name: str) -> Iterator[None]:
        """Count one waiting request while the block runs; an on-demand model is loaded for it.

        Raises:
            Problem: 429 ``too_many_waiting``.
        """
        if self.snapshot.residency is None:
            yield
            return
        with self._demand.wait(name):
            self._inbox.put(Requested(self.snapshot.refusals))
            yield

    def grant(self, plan: SizedPlan) -> None:
        self._inbox.put(Granted(plan))

    def refuse(self, problem: Problem) -> None:
        self._inbox.put(Refused(problem))

    def evict(self, reason: str, *, only_idle: bool) -> None:
        self._inbox.put(Evict(reason, only_idle))

    async def add_replica(
        self, gpu_idx: tuple[int, ...] = (), *, wait_ready: bool = True, is_stored: bool = True
    ) -> int:
        """Start an additional replica of the same size as the others, and return its number.

        With `wait_ready`, the call returns when the replica is ready. A replica whose first start fails is removed.
        One that is not `is_stored` is the successor of another, and is ended by the next server if both run then.

        Raises:
            Problem: 400 ``does_not_fit`` or ``no_such_device``, 409 no replica runs, 503 the start failed.
        """
        loop = asyncio.get_running_loop()
        message = AddReplica(gpu_idx, loop.create_future(), loop.create_future(), is_stored)
        # Without `wait_ready`, no caller retrieves the exception.
        message.ready.add_done_callback(lambda done: done.cancelled() or done.exception())
        number: int = await self._request(message, message.number)
        if wait_ready:
            await message.ready
        return number

    async def remove_replica(self, number: int) -> int:
        """Stop a replica after its last answer, at most `drain_seconds` later; returns the number that remains.

        Raises:
            Problem: 404; 409 if the replica is the last one, or the deployment is not running.
        """
        message = RemoveReplica(number, asyncio.get_running_loop().create_future())
        remaining: int = await self._request(message, message.remaining)
        return remaining

    async def unload(self, *, for_restart: bool = False, seconds: float | None = None) -> None:
        """Stop the engines after their running requests, at most `seconds` later, and release their memory.

        `seconds` None: `drain_seconds` of the settings. A model that is not on demand stays unloaded, also under later
        servers, unless this is `for_restart`.

        Raises:
            Problem: 409, the model is not loaded; or the change cannot be stored.
        """
        message = Unload(asyncio.get_running_loop().create_future(), for_restart, seconds)
        await self._request(message, message.done)

    async def set_aliases(self, aliases: tuple[str, ...]) -> None:
        """Replace the further names of the deployment; the caller has checked them.

        Raises:
            Problem: 409, the deployment has failed; or the change cannot be stored.
        """
        message = SetAliases(aliases, asyncio.get_running_loop().create_future())
        await self._request(message, message.done)

    async def set_terms(self, changes: Mapping[str, Any]) -> None:
        """Change the conditions for the unload of a model on demand; the caller has checked them.

        Raises:
            Problem: 409, the deployment has failed; or the change cannot be stored.
        """
        message = SetTerms(changes, asyncio.get_running_loop().create_future())
        await self._request(message, message.done)

    async def _request(self, message: Message, reply: asyncio.Future[Any]) -> Any:
        """Send a message to the owner and return its reply.

        Raises:
            Problem: 409, the owner does not run.
        """
        if self._task is None or self._task.done():
            raise not_running(self.uid, self.snapshot.stage)
        self._inbox.put(message)
        return await reply


def _wait_until(context: DeploymentContext, *, ran: bool) -> float:
    """The time until which a restored deployment waits for a node; one that has been ready waits without a limit."""
    return math.inf if ran else time.monotonic() + context.settings.node_lost_seconds


def _first_snapshot(
    plan: LaunchPlan, context: DeploymentContext, created: float, problem: Problem | None
) -> DeploymentSnapshot:
    # A deployment with stored replicas was running under an earlier server: requests may wait for it.
    has_replicas, on_demand = bool(context.store.replicas(plan.uid)), plan.request.on_demand
    return DeploymentSnapshot(
        plan.uid,
        plan,
        created,
        status=Status.CREATING if problem is None else Status.ERROR,
        stage=Stage.PENDING if problem is None else Stage.FAILED,
        problem=problem,
        launching=problem is None and not has_replicas,
        was_ready=has_replicas,
        residency=Residency.UNLOADED if on_demand else None,
        terms=terms_of(plan.request, context.settings) if on_demand else None,
        ready_since=time.monotonic(),
    )
