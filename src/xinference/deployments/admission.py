"""Grants memory to deployments: one task reads the host, runs the scheduler and sends its effects to deployments."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable

from xinference.config import Settings
from xinference.deployments.context import MemoryHolder
from xinference.deployments.measurement import all_corrections, with_correction
from xinference.deployments.snapshot import DeploymentSnapshot, Residency
from xinference.errors import Problem, defect
from xinference.hardware.devices import Host
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.planning.admission import Activity, AdmissionScheduler, Candidate, MemoryState
from xinference.planning.eviction import Bytes, Resident, State
from xinference.planning.occupancy import Occupancy, footprint, reserved_bytes
from xinference.planning.sizing import answers_as_much
from xinference.routing.interfaces import ReplicaLoad
from xinference.store.database import Store

log = logging.getLogger(__name__)
#: Interval at which the task checks whether a model in use has become idle, while a launch waits for memory.
POLL_SECONDS = 0.02


class Admission:
    """Implements `MemoryAdmission` for deployments and `Effects` for the scheduler.

    A call by a deployment only records an event and wakes the task. Only the task makes decisions.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        load: ReplicaLoad,
        holders: Callable[[], Iterable[MemoryHolder]],
        read_host: Callable[[], Awaitable[Host]],
    ) -> None:
        self._store = store
        self._load = load
        self._holders = holders
        self._read_host = read_host
        self._scheduler = AdmissionScheduler[SizedPlan](
            self,
            footprint,
            answers_as_much,
            wait_seconds=settings.on_demand_wait_seconds,
            turn_seconds=settings.on_demand_turn_seconds,
            memory_limit=settings.model_memory,
            saves_states=settings.saves_states,
        )
        self._change_event = asyncio.Event()
        self._wake_time: float | None = None

    # -- for deployments --------------------------------------------------------------------------------------

    def occupancy_of_others(self, plan: LaunchPlan) -> Occupancy:
        return with_correction(self._scheduler.occupancy_of_others(plan.uid, self._activity()), plan, self._store)

    def occupancy_on(self, node_id: str, plan: LaunchPlan) -> Occupancy:
        """The memory of another node that is reserved for all deployments except that of the plan."""
        others = self._scheduler.occupancy_of_others(
            plan.uid, self._activity(), footprint_of=lambda reserved: footprint(reserved, node_id)
        )
        return with_correction(others, plan, self._store)

    def occupancy_for(self, plan: LaunchPlan, without: Collection[str] = ()) -> Occupancy:
        occupancy = self._scheduler.occupancy_for(plan.uid, plan.request.on_demand, self._activity(), without=without)
        return with_correction(occupancy, plan, self._store)

    def occupancy(self, without: Collection[str] = ()) -> Occupancy:
        """The memory of all models for a launch of any model that does not run, without a correction."""
        return self._scheduler.occupancy_for("", False, self._activity(), without=without)

    def corrections(self) -> dict[tuple[str, str], int]:
        """Version id and engine -> the correction of a plan on the CPU."""
        return all_corrections(self._store.all_measurements())

    def reserved(self) -> dict[str, Bytes]:
        """Uid of each deployment with reserved memory -> bytes of each device."""
        return {uid: footprint(plan).reserved for uid, plan in self._scheduler.ledger.items()}

    def reserved_on(self, node_id: str) -> list[Bytes]:
        """Bytes of each device of another node that are reserved there, for each deployment."""
        return [reserved for plan in self._scheduler.ledger.values() if (reserved := reserved_bytes(plan, node_id))]

    def hold(self, uid: str, plan: SizedPlan) -> None:
        self._scheduler.hold(uid, plan)
        self.changed()

    def release(self, uid: str) -> None:
        self._scheduler.release(uid)
        self.changed()

    def ask(self, candidate: Candidate[SizedPlan]) -> None:
        self._scheduler.ask(candidate)
        self.changed()

    def withdraw(self, uid: str) -> None:
        self._scheduler.withdraw(uid)
        self.changed()

    def declined(self, uid: str) -> None:
        self._scheduler.declined(uid)
        self.changed()

    def changed(self) -> None:
        self._change_event.set()

    # -- the task ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make decisions after each change and at each wake time, until the task is cancelled."""
        while True:
            await self._wait_for_work()
            self._change_event.clear()
            activity = self._activity()
            if self._scheduler.waiting or self._scheduler.has_withdrawn or activity.residents:
                await self._decide()

    async def _decide(self) -> None:
        self._wake_time = None
        host = await self._read_host()
        await self._load.settled()
        activity = self._activity()
        try:
            self._scheduler.run(MemoryState(activity.ready, activity.residents, host), time.monotonic())
        except Exception as error:
            # A defect of xinference in the sizing of a candidate: refuse this candidate, and serve the next ones.
            log.exception("admission")
            self._scheduler.refuse_first(defect(error))
            self._wake_time = time.monotonic()

    async def _wait_for_work(self) -> None:
        """Wait for a change, for the wake time, or until a resident that was in use becomes idle."""
        before = self._states()
        while not self._change_event.is_set():
            now = time.monotonic()
            timeouts = [] if self._wake_time is None else [max(POLL_SECONDS, self._wake_time - now)]
            if polls := self._scheduler.waiting and "in_use" in before.values():
                timeouts.append(POLL_SECONDS)  # the data path counts its requests without notifying the admission
            try:
                async with asyncio.timeout(min(timeouts, default=None)):
                    await self._change_event.wait()
            except TimeoutError:
                if self._wake_time is not None and time.monotonic() >= self._wake_time:
                    return
            if polls:
                await self._load.settled()
                if self._states() != before:
                    return

    def _states(self) -> dict[str, State]:
        return {resident.uid: resident.state for resident in self._activity().residents}

    def _activity(self) -> Activity:
        holders = list(self._holders())
        residents = (resident_of(holder.snapshot, holder.waiting, self._load) for holder in holders)
        return Activity(
            frozenset(holder.uid for holder in holders if holder.snapshot.ready),
            tuple(resident for resident in residents if resident is not None),
        )

    # -- the scheduler's effects ------------------------------------------------------------------------------

    def grant(self, uid: str, plan: SizedPlan) -> None:
        for holder in self._holders_of(uid):
            holder.grant(plan)

    def evict(self, uid: str, reason: str, *, only_idle: bool) -> None:
        for holder in self._holders_of(uid):
            holder.evict(reason, only_idle=only_idle)

    def refuse(self, uid: str, problem: Problem) -> None:
        for holder in self._holders_of(uid):
            holder.refuse(problem)

    def wake_at(self, when: float) -> None:
        self._wake_time = when

    def _holders_of(self, uid: str) -> list[MemoryHolder]:
        """The deployment with this uid; empty if the deployment has ended meanwhile."""
        return [holder for holder in self._holders() if holder.uid == uid]


def resident_of(deployment: DeploymentSnapshot, waiting: int, load: ReplicaLoad) -> Resident | None:
    """The state of an on-demand deployment that has memory reserved, else None.

    Its `reserved` is empty: the scheduler fills it in from its ledger.
    """
    terms = deployment.terms
    if terms is None or deployment.residency is None or not deployment.residency.holds_memory:
        return None
    state: State = "idle"
    if deployment.residency is Residency.DRAINING:
        state = "unloading"
    elif not deployment.ready:
        state = "loading"
    elif waiting or any(load.at(replica_id) for replica_id in deployment.replica_ids):
        state = "in_use"
    ends = [end for replica_id in deployment.replica_ids if (end := load.last_end(replica_id)) is not None]
    last_used = max([deployment.ready_since, *ends])
    return Resident(
        deployment.uid, state, {}, terms.priority, terms.pinned, last_used, deployment.ready_since, terms.ttl
    )
