"""The replicas of one deployment: starts, restarts, adds and removes them. A plain object of the owner."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path

from xinference.config import Settings
from xinference.deployments.drain import drain
from xinference.deployments.engine_starter import ReplicaProcess, Starter, death, explained, given_up, sized_by
from xinference.deployments.inbox import (
    Inbox,
    ReplicaChanged,
    ReplicaDrained,
    ReplicaExited,
    ReplicaReady,
    RestartDue,
    answer,
)
from xinference.deployments.replica_exit import GivenUp, NotStarted, Outcome, Removed, Restart
from xinference.deployments.snapshot import ReplicaView
from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.planning.replicas import lowest_free, positions
from xinference.planning.restart import restart_delay
from xinference.process.command import Exit
from xinference.routing.interfaces import ReplicaLoad
from xinference.store.database import Store


@dataclass
class _Replica:
    """One replica that there should be."""

    process: ReplicaProcess | None = None
    measured: bool = False
    quick_deaths: int = 0
    leaving: bool = False
    added: asyncio.Future[None] | None = None
    """Set once it is ready; None: nobody added it, or it has been ready."""
    removed: asyncio.Future[int] | None = None
    left: int = 0
    """What `removed` is set to."""


class ReplicaSet:
    """The replicas by their numbers. Called by the owner only; its tasks put messages, and change nothing."""

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
        self._settings = settings
        self._store = store
        self._load = load
        self._inbox = inbox
        self._replicas: dict[int, _Replica] = {}
        self._lost: dict[int, Problem] = {}
        """Those that are not started again, and why, in that order."""
        self.last_log: Path | None = None
        """The output of the replica that ended last."""

    # -- what there is ----------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return bool(self._replicas)

    @property
    def staying(self) -> list[int]:
        """The numbers of those that are not being removed."""
        return sorted(number for number, each in self._replicas.items() if not each.leaving)

    @property
    def next_number(self) -> int:
        return lowest_free(self._replicas)

    def views(self, count: int) -> tuple[ReplicaView, ...]:
        """Every replica that there should be, by its number; `count` of them where none has been started."""
        if not self._replicas:
            return tuple(ReplicaView(number) for number in positions((), count))
        return tuple(
            ReplicaView(
                number,
                each.process.snapshot if each.process is not None else None,
                each.measured,
                each.leaving,
                self._lost.get(number),
            )
            for number, each in sorted(self._replicas.items())
        )

    # -- all of them ------------------------------------------------------------------------------------------

    async def adopt(self, plan: LaunchPlan) -> tuple[LaunchPlan, int]:
        """Take back the replicas that an earlier server left running; the plan as they were sized, and their number."""
        adopted: dict[int, ReplicaProcess] = {}
        for row in self._store.replicas(self._uid):
            process = await self._starter.adopt(row.replica_id, self._changed)
            if process is None or row.position in adopted:
                self._store.remove_replica(row.replica_id)
                continue
            adopted[row.position] = process
            plan = sized_by(plan, row.position, process.snapshot.context)
        self._replicas = {number: _Replica(process) for number, process in adopted.items()}
        return plan, len(adopted)

    async def resume(self, plan: LaunchPlan) -> None:
        """Follow those that were adopted, and start the others that `plan` wants."""
        wanted = positions(self._replicas, plan.request.replica)
        for number in self._replicas.keys() - set(wanted):  # an earlier server was told to remove it and did not get to
            process = self._replicas.pop(number).process
            assert process is not None
            await process.stop()
            self._forget(process)
        for number in wanted:
            if number in self._replicas:
                self._follow(number)
            else:
                self._replicas[number] = _Replica()
                self._inbox.put(RestartDue(number))

    def start_all(self, plan: SizedPlan, python: Path) -> None:
        """Start as many as `plan` wants.

        Raises:
            Problem: one can't be started.
        """
        for number in positions((), plan.request.replica):
            self._replicas[number] = _Replica()
        for number in self.staying:
            self.start(number, plan, python)

    async def stop_all(self) -> None:
        """End all of them; none is there as before the first start."""
        running = self._running
        await asyncio.gather(*(process.stop() for process in running))
        for process in running:
            self._forget(process)
        for number, each in self._replicas.items():
            self._answer(number, each)
        self._replicas.clear()
        self._lost.clear()

    async def detach_all(self) -> None:
        """Leave all of them running for a later server."""
        await asyncio.gather(*(process.detach() for process in self._running))
        for number, each in self._replicas.items():
            self._answer(number, each)
        self._replicas.clear()

    # -- one of them ------------------------------------------------------------------------------------------

    def waits_for_start(self, number: int) -> bool:
        """Whether a replica should have a process and has none."""
        each = self._replicas.get(number)
        return each is not None and each.process is None and not each.leaving and number not in self._lost

    def start(self, number: int, plan: SizedPlan, python: Path) -> None:
        """Start the process of a replica; its row is written first, so that a successor finds what it started.

        Raises:
            Problem: it can't be started.
        """
        replica_id = f"r{secrets.token_hex(5)}"
        self._store.add_replica(replica_id, self._uid, number)
        try:
            process = self._starter.start(replica_id, plan, number, python, self._changed)
        except BaseException:
            self._store.remove_replica(replica_id)
            raise
        self._replicas[number].process = process
        self._follow(number)

    def add(self, number: int, ready: asyncio.Future[None]) -> None:
        """There should be one replica more; `ready` is set once it is."""
        self._replicas[number] = _Replica(added=ready)

    def added(self, number: int) -> asyncio.Future[None] | None:
        """Who waits for a replica that was added and has not been ready."""
        return self._replicas[number].added

    def take_back(self, number: int) -> None:
        """A replica that was added should not be there any more."""
        del self._replicas[number]

    def remove(self, number: int, removed: asyncio.Future[int], left: int) -> bool:
        """From now on no request goes to a replica; whether it has ended already.

        `removed` is set to `left` once it has ended, after its last answer if that is sent in time.
        """
        each = self._replicas[number]
        each.leaving, each.removed, each.left = True, removed, left
        if each.process is None:
            self._drop(number)
            return True
        self._inbox.spawn(self._drain(number, each.process))
        return False

    def end_removed(self, message: ReplicaDrained) -> bool:
        """End the process of a removed replica; whether it is still there."""
        each = self._replicas.get(message.number)
        if each is None or each.process is not message.replica:
            return False
        self._inbox.spawn(_stop(message.replica))
        return True

    @property
    def last_lost(self) -> Problem | None:
        """Why the last replica was given up; None: there is one that was not."""
        if self._lost and self._lost.keys() == self._replicas.keys():
            return next(reversed(self._lost.values()))
        return None

    # -- what its processes report ----------------------------------------------------------------------------

    def note_ready(self, message: ReplicaReady) -> bool:
        """A process answers; whether it is still that of a replica."""
        each = self._replicas.get(message.number)
        if each is None or each.process is not message.replica:
            return False
        each.measured = True
        if each.added is not None:
            answer(each.added, None)
            each.added = None
        return True

    def note_exit(self, message: ReplicaExited, *, was_ready: bool, wanted: bool = True) -> Outcome:
        """A process has ended; what that means.

        `was_ready`: the deployment has answered since it was loaded. `wanted`: it is not about to be unloaded.
        """
        number, each = message.number, self._replicas.get(message.number)
        if each is None or each.process is not message.replica:
            return None
        each.process, each.measured = None, False
        self._forget(message.replica)
        if each.leaving:
            self._drop(number)
            return Removed(self.last_lost)
        if not wanted:
            return None
        died = self._why(message)
        if message.problem is not None and (each.added is not None or not was_ready):
            return NotStarted(number, died, each.added)
        each.quick_deaths = each.quick_deaths + 1 if self._was_quick(message.exit) else 1
        delay = restart_delay(each.quick_deaths, self._settings)
        if delay is None:
            self._lost[number] = given_up(self._uid, died, each.quick_deaths)
            return GivenUp(self._lost[number], self.last_lost is not None)
        self._inbox.spawn(self._restart(number, delay))
        again = f"Starting it again{f' in {delay:g} s' if delay else ''}."
        return Restart(number, f"{died.cause} {again}")

    def _why(self, message: ReplicaExited) -> Problem:
        if message.problem is not None:
            return explained(self._engine, message.problem)
        assert message.exit is not None
        return death(self._uid, self._engine, message.exit)

    def _was_quick(self, ended: Exit | None) -> bool:
        """Whether it died too early to have been of use."""
        return ended is None or ended.ran_seconds < self._settings.quick_death_seconds

    # -- within -----------------------------------------------------------------------------------------------

    @property
    def _running(self) -> list[ReplicaProcess]:
        return [each.process for each in self._replicas.values() if each.process is not None]

    def _changed(self) -> None:
        self._inbox.put(ReplicaChanged())

    def _forget(self, process: ReplicaProcess) -> None:
        """A process is gone for good."""
        self.last_log = process.snapshot.log_path
        self._store.remove_replica(process.snapshot.replica_id)
        self._load.forget(process.snapshot.replica_id)

    def _drop(self, number: int) -> None:
        """A removed replica has ended."""
        self._answer(number, self._replicas.pop(number))
        self._lost.pop(number, None)

    def _answer(self, number: int, each: _Replica) -> None:
        """Tell those who wait for a replica that is not there any more."""
        if each.added is not None:
            cause = f"Replica {number} of {self._uid} was ended before it was ready."
            answer(each.added, Problem(Code.REPLICA_STOPPED, cause))
        if each.removed is not None:
            answer(each.removed, each.left)

    # -- tasks, which only put messages -----------------------------------------------------------------------

    def _follow(self, number: int) -> None:
        process = self._replicas[number].process
        assert process is not None
        self._inbox.spawn(self._supervise(number, process))

    async def _supervise(self, number: int, process: ReplicaProcess) -> None:
        try:
            await process.wait_ready()
        except Problem as problem:
            self._inbox.put(ReplicaExited(number, process, process.snapshot.exit, problem))
            return
        self._inbox.put(ReplicaReady(number, process, await self._starter.measure(process)))
        try:
            ended = await process.wait_exited()
        except Problem:
            return  # it was left to another server
        self._inbox.put(ReplicaExited(number, process, ended))

    async def _restart(self, number: int, delay: float) -> None:
        await asyncio.sleep(delay)
        self._inbox.put(RestartDue(number))

    async def _drain(self, number: int, process: ReplicaProcess) -> None:
        ids = (process.snapshot.replica_id,)
        in_time = await drain(self._load, lambda: ids, self._settings.drain_seconds)
        self._inbox.put(ReplicaDrained(number, process, in_time))


async def _stop(process: ReplicaProcess) -> None:
    await process.stop()
