"""The replicas of one deployment: starts, restarts, adds and removes them. A plain object of the owner."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from xinference.config import Settings
from xinference.deployments.engine_starter import Starter
from xinference.deployments.exit_problems import (
    crash_of,
    exit_problem,
    restart_limit_problem,
    start_problem,
    with_engine_hint,
)
from xinference.deployments.inbox import Inbox, resolve
from xinference.deployments.messages import ReplicaChanged, ReplicaDrained, ReplicaExited, ReplicaReady, RestartDue
from xinference.deployments.replica_command import restore_sizing
from xinference.deployments.replica_exit import Outcome, ReplicaRemoved, Restart, RestartLimitReached, StartFailed
from xinference.deployments.restart_count import RestartCount
from xinference.deployments.snapshot import ReplicaView
from xinference.deployments.supervision import Supervision
from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.nodes.node import ReplicaLike
from xinference.planning.plan import MAX_REPLICAS
from xinference.planning.replicas import lowest_free_number, positions
from xinference.process.command import Exit, Fault
from xinference.process.log_files import remove_log
from xinference.process.node_log import EngineLog
from xinference.process.snapshot import ReplicaSnapshot
from xinference.routing.interfaces import ReplicaLoad
from xinference.routing.table import Crash
from xinference.store.database import Store

#: Crashes that the gateway is told of; it asks for one within a second.
MAX_CRASHES = 32


@dataclass
class _Replica:
    """One replica of the deployment, with or without a process."""

    process: ReplicaLike | None = None
    waits: Problem | None = None
    """Why it had no place when one was looked for last; None: it had one."""
    measured: bool = False
    removing: bool = False
    restarts: RestartCount = field(default_factory=RestartCount)
    ready_reply: asyncio.Future[None] | None = None
    """The reply to the request that added the replica; None: there was no such request, or it has its reply."""
    removed_reply: asyncio.Future[int] | None = None
    """The reply to the request that removes the replica."""
    remaining: int = 0
    """The result of `removed_reply`: the number of replicas that remain."""


class ReplicaSet:
    """The replicas of a deployment by their numbers.

    Only the owner calls its methods. Its tasks only put messages into the inbox; they change no state.
    """

    def __init__(
        self,
        uid: str,
        engine: Engine,
        starter: Starter,
        settings: Settings,
        store: Store,
        load: ReplicaLoad,
        inbox: Inbox,
    ) -> None:
        self._uid = uid
        self._engine = engine
        self._starter = starter
        self._supervision = Supervision(starter, settings, load, inbox)
        self._settings = settings
        self._store = store
        self._load = load
        self._inbox = inbox
        self._replicas: dict[int, _Replica] = {}
        self._restart_problems: dict[int, Problem] = {}
        """The problems of the replicas that are not started again, by number; oldest first."""
        self.last_log: EngineLog | None = None
        """The log of the replica that exited last."""
        self._crashes: deque[Crash] = deque(maxlen=MAX_CRASHES)

    # -- current state ----------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return bool(self._replicas)

    @property
    def remaining_numbers(self) -> list[int]:
        """The numbers of the replicas that are not being removed."""
        return sorted(number for number, replica in self._replicas.items() if not replica.removing)

    @property
    def next_number(self) -> int:
        return lowest_free_number(self._replicas)

    def views(self, count: int) -> tuple[ReplicaView, ...]:
        """Views of all replicas, sorted by number; `count` views without a process if no replica has been started."""
        if not self._replicas:
            return tuple(ReplicaView(number) for number in positions((), count))
        return tuple(
            ReplicaView(
                number,
                replica.process.snapshot if replica.process is not None else None,
                replica.measured,
                replica.removing,
                self._restart_problems.get(number),
                replica.waits,
            )
            for number, replica in sorted(self._replicas.items())
        )

    @property
    def crashes(self) -> tuple[Crash, ...]:
        """The engines that ended last without a request of the server, and those that are being killed."""
        found = (crash_of(process.snapshot) for process in self._running)
        return (*self._crashes, *(crash for crash in found if crash is not None))

    # -- all replicas -----------------------------------------------------------------------------------------

    async def adopt(self, plan: LaunchPlan) -> tuple[LaunchPlan, int]:
        """Adopt the replicas that an earlier server left running.

        Returns the plan with the size that those replicas were started with, and the number of adopted replicas.
        """
        adopted: dict[int, ReplicaLike] = {}
        for row in self._store.replicas(self._uid):
            process = await self._starter.adopt(row.replica_id, self._report_change)
            if process is not None and (row.position in adopted or not 0 <= row.position < MAX_REPLICAS * 2):
                await process.stop()  # a damaged row: no other replica may have the number
                process = None
            if process is None:
                self._store.remove_replica(row.replica_id)
                continue
            adopted[row.position] = process
            plan = restore_sizing(plan, row.position, process.snapshot.context)
        self._replicas = {number: _Replica(process) for number, process in adopted.items()}
        return plan, len(adopted)

    async def resume(self, plan: LaunchPlan) -> None:
        """Supervise the adopted replicas, and start the missing ones of `plan`."""
        numbers = positions(self._replicas, plan.request.replica)
        for number in self._replicas.keys() - set(numbers):  # an earlier server ended before it could remove them
            process = self._replicas.pop(number).process
            assert process is not None
            await process.stop()
            self._forget(process)
        for number in numbers:
            if number in self._replicas:
                self._watch(number)
            else:
                self._replicas[number] = _Replica()
                self._inbox.put(RestartDue(number))

    def create_all(self, count: int) -> list[int]:
        """Add `count` replicas without a process, and return their numbers."""
        for number in positions((), count):
            self._replicas[number] = _Replica()
        return self.remaining_numbers

    async def stop_all(self) -> None:
        """Stop all replicas and remove them from the set."""
        running = self._running
        await asyncio.gather(*(process.stop() for process in running))
        for process in running:
            self._forget(process)
        for number, replica in self._replicas.items():
            self._resolve_replies(number, replica)
        self._replicas.clear()
        self._restart_problems.clear()

    async def detach_all(self) -> None:
        """Stop the supervision of all replicas; their engines go on running for a later server."""
        await asyncio.gather(*(process.detach() for process in self._running))
        for number, replica in self._replicas.items():
            self._resolve_replies(number, replica)
        self._replicas.clear()

    # -- one replica ------------------------------------------------------------------------------------------

    def waits_for_start(self, number: int) -> bool:
        """Whether a replica has no process and needs one."""
        replica = self._replicas.get(number)
        return (
            replica is not None
            and replica.process is None
            and not replica.removing
            and number not in self._restart_problems
        )

    def note_wait(self, number: int, problem: Problem | None) -> None:
        """A replica without a process has no place; None: it has one now."""
        if self.waits_for_start(number):
            self._replicas[number].waits = problem

    async def start(self, number: int, plan: SizedPlan, python: Path) -> None:
        """Start the process of a replica. Its row is written first, so that a later server can adopt the process.

        Raises:
            Problem: the process cannot be started.
        """
        replica_id = f"r{secrets.token_hex(5)}"
        self._store.add_replica(replica_id, self._uid, number, plan.place_of(number).nodes)
        try:
            process = await self._starter.start(replica_id, plan, number, python, self._report_change)
        except BaseException:
            self._store.remove_replica(replica_id)
            raise
        self._replicas[number].process, self._replicas[number].waits = process, None
        self._replicas[number].restarts.failed_starts = 0
        self._watch(number)

    def start_later(self, number: int, *, was_ready: bool) -> float | None:
        """Start a replica again after a while, because the disk or the store could not be written.

        Returns the delay in seconds; None: a first start has been tried often enough. A replica of a model that has
        been ready is started without a limit: the model recovers as soon as the store can be written.
        """
        replica = self._replicas[number]
        is_limited = not was_ready or replica.ready_reply is not None
        delay = replica.restarts.delay_after_failed_start(self._settings, is_limited=is_limited)
        if delay is not None:
            self._supervision.restart_after(number, delay)
        return delay

    def add(self, number: int, ready: asyncio.Future[None]) -> None:
        """Add a replica without a process; `ready` is resolved when the replica is ready."""
        self._replicas[number] = _Replica(ready_reply=ready)

    def ready_reply(self, number: int) -> asyncio.Future[None] | None:
        """The reply to the request that added a replica; None: there is no request that waits for this replica."""
        return self._replicas[number].ready_reply

    def discard(self, number: int) -> None:
        """Remove a replica that was added and has no process."""
        del self._replicas[number]

    def remove(self, number: int, removed: asyncio.Future[int], remaining: int) -> bool:
        """Drain and stop a replica; returns whether it is removed already, because it had no process.

        `removed` is resolved with `remaining` when the process has exited.
        """
        replica = self._replicas[number]
        replica.removing, replica.removed_reply, replica.remaining = True, removed, remaining
        if replica.process is None:
            self._drop(number)
            return True
        self._supervision.drain(number, replica.process)
        return False

    def end_removed(self, message: ReplicaDrained) -> bool:
        """Stop the process of a removed replica; returns whether that process is still the replica's."""
        replica = self._replicas.get(message.number)
        if replica is None or replica.process is not message.replica:
            return False
        self._supervision.stop(message.replica)
        return True

    @property
    def last_restart_problem(self) -> Problem | None:
        """The newest problem, if none of the replicas is started again; else None."""
        if self._restart_problems and self._restart_problems.keys() == self._replicas.keys():
            return next(reversed(self._restart_problems.values()))
        return None

    # -- reports of the processes ----------------------------------------------------------------------------

    def note_ready(self, message: ReplicaReady) -> bool:
        """Mark the replica of a process as ready; returns whether the process is still a replica's."""
        replica = self._replicas.get(message.number)
        if replica is None or replica.process is not message.replica:
            return False
        replica.measured = True
        if replica.ready_reply is not None:
            resolve(replica.ready_reply, None)
            replica.ready_reply = None
        return True

    def note_exit(self, message: ReplicaExited, *, was_ready: bool, restartable: bool = True) -> Outcome:
        """Record that a process has exited, and return the consequence.

        `was_ready`: a replica has become ready since the deployment was loaded. `restartable`: the deployment is not
        being unloaded.
        """
        number, replica = message.number, self._replicas.get(message.number)
        if replica is None or replica.process is not message.replica:
            return None
        replica.process, replica.measured = None, False
        if message.problem is None and not _is_without_node(message.exit):
            self._note_crash(message.replica.snapshot)
        self._forget(message.replica)
        if replica.removing:
            self._drop(number)
            return ReplicaRemoved(self.last_restart_problem)
        return self._restart_or_give_up(message, replica, was_ready=was_ready) if restartable else None

    def _restart_or_give_up(self, message: ReplicaExited, replica: _Replica, *, was_ready: bool) -> Outcome:
        number, problem = message.number, self._exit_problem(message)
        if _is_without_node(message.exit):  # no fault of the model
            self._supervision.restart_after(number, 0.0)
            return Restart(number, f"{problem.cause} It is started again where there is room.")
        if message.problem is not None and (replica.ready_reply is not None or not was_ready):
            return StartFailed(number, problem, replica.ready_reply)
        delay = replica.restarts.delay_after_exit(message.exit, self._settings, had_requests=message.had_requests)
        if delay is None:
            self._restart_problems[number] = restart_limit_problem(self._uid, problem, replica.restarts.quick_deaths)
            return RestartLimitReached(self._restart_problems[number], self.last_restart_problem is not None)
        self._supervision.restart_after(number, delay)
        again = f"It is started again{f' in {delay:g} s' if delay else ''}."
        return Restart(number, f"{problem.cause} {again}")

    def _exit_problem(self, message: ReplicaExited) -> Problem:
        if message.problem is not None:
            return with_engine_hint(self._engine, start_problem(message.problem, message.exit))
        assert message.exit is not None
        return exit_problem(self._uid, self._engine, message.exit)

    # -- helpers ----------------------------------------------------------------------------------------------

    @property
    def _running(self) -> list[ReplicaLike]:
        return [replica.process for replica in self._replicas.values() if replica.process is not None]

    def _report_change(self) -> None:
        self._inbox.put(ReplicaChanged())

    def _note_crash(self, process: ReplicaSnapshot) -> None:
        crash = crash_of(process)
        if crash is not None:
            self._crashes.append(crash)

    def _forget(self, process: ReplicaLike) -> None:
        """Delete the row and the request count of a process that has exited, and the log of the one before it."""
        before, self.last_log = self.last_log, process.snapshot.log
        if isinstance(before, Path) and before != self.last_log:
            remove_log(before)
        self._store.remove_replica(process.snapshot.replica_id)
        self._load.forget(process.snapshot.replica_id)

    def _drop(self, number: int) -> None:
        """Delete a removed replica that has no process any more."""
        self._resolve_replies(number, self._replicas.pop(number))
        self._restart_problems.pop(number, None)

    def _resolve_replies(self, number: int, replica: _Replica) -> None:
        """Resolve the replies about a replica that is deleted from the set."""
        if replica.ready_reply is not None:
            cause = f"Replica {number} of {self._uid} was stopped before it was ready."
            resolve(replica.ready_reply, Problem(Code.REPLICA_STOPPED, cause))
        if replica.removed_reply is not None:
            resolve(replica.removed_reply, replica.remaining)

    def _watch(self, number: int) -> None:
        process = self._replicas[number].process
        assert process is not None
        self._supervision.watch(number, process)


def _is_without_node(exit: Exit | None) -> bool:
    """Whether a process has ended because its machine is lost or leaves the cluster."""
    return exit is not None and exit.fault in (Fault.NODE_LOST, Fault.NODE_LEFT)
