"""Who may take memory, and who leaves for it: one launch after the other, so that no byte is promised twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from xinference.config import Settings
from xinference.deployments.measurement import correction
from xinference.errors import Problem
from xinference.hardware.devices import Host, read_host
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.planning import eviction
from xinference.planning.eviction import HOST, Resident, State
from xinference.planning.occupancy import Occupancy, free_bytes, held_bytes, promised_bytes
from xinference.routing.interfaces import NoLoad, ReplicaLoad
from xinference.store.database import Store

if TYPE_CHECKING:
    from xinference.deployments.deployment import Deployment

#: How often the models on demand are looked at: while somebody waits for room, and else.
WAIT_SECONDS, WATCH_SECONDS = 0.02, 1.0


class Admission:
    """The memory of all deployments."""

    def __init__(self, settings: Settings, store: Store, deployments: Callable[[], Iterable[Deployment]]) -> None:
        self._settings = settings
        self._store = store
        self._deployments = deployments
        self._turn = asyncio.Lock()
        self.use: ReplicaLoad = NoLoad()
        """What the data path is doing; the server sets it."""

    # -- what is there --------------------------------------------------------------------------------------

    def beside(self, plan: LaunchPlan) -> Occupancy:
        """What is taken by the other deployments, as they are now."""
        return self._around(plan, frozenset())

    def beside_those_that_stay(self, plan: LaunchPlan) -> Occupancy:
        """The same, as if those had left that would leave for `plan`.

        A model on demand is sized as if it had the room of all others on demand, whatever they do just now: it gets
        the same context at every load. Any other launch takes the room of idle ones.
        """
        on_demand = plan.request.on_demand
        return self._around(
            plan,
            frozenset(
                resident.uid
                for resident in self.residents()
                if resident.uid != plan.uid and not resident.pinned and (on_demand or resident.state == "idle")
            ),
        )

    def residents(self) -> list[Resident]:
        """The models on demand that hold memory."""
        return [self._resident(d) for d in self._deployments() if d.on_demand is not None and d.on_demand.granted]

    def _around(self, plan: LaunchPlan, without: Collection[str]) -> Occupancy:
        granted: Counter[int] = Counter()
        returned: Counter[int] = Counter()
        outstanding = promised = 0
        for other in self._deployments():
            held_plan = _held_plan(other)
            if other.uid == plan.uid or held_plan is None:
                continue
            held = held_bytes(held_plan)
            later = held_plan.sizing.later_bytes * held_plan.request.replica
            if other.uid in without:
                returned.update({d: max(0, count - later * (d == HOST)) for d, count in held.items()})
                continue
            granted.update(promised_bytes(held_plan))
            promised += held.get(HOST, 0)
            # What a ready engine holds is not free any more; what it was promised beyond that, it may take at any time.
            outstanding += min(later, held.get(HOST, 0)) if other.ready else held.get(HOST, 0)
        limit = self._settings.model_memory
        known = self._store.measurements(plan.version.version_id, plan.engine)
        return Occupancy(
            granted,
            correction(plan, known),
            host_outstanding=outstanding,
            host_left=max(0, limit - promised) if limit else None,
            returned=returned,
        )

    def _resident(self, deployment: Deployment) -> Resident:
        demand, plan = deployment.on_demand, deployment.plan
        assert demand is not None
        replicas = deployment.replica_ids
        state: State = "idle"
        if demand.leaving is not None:
            state = "leaving"
        elif not deployment.ready:
            state = "loading"
        elif demand.waiting or any(self.use.at(replica) for replica in replicas):
            state = "in_use"
        ends = [end for replica in replicas if (end := self.use.last_end(replica)) is not None]
        return Resident(
            deployment.uid,
            state,
            held_bytes(plan) if isinstance(plan, SizedPlan) else {},
            demand.priority,
            demand.pinned,
            max([demand.ready_since, *ends]),
            demand.ready_since,
            demand.ttl,
        )

    # -- coming ---------------------------------------------------------------------------------------------

    async def admit(self, deployment: Deployment) -> SizedPlan:
        """The deployment's plan, sized, with its memory promised to it; others leave first if they have to.

        The first that asks is the first to be served. A model on demand may wait for its turn, as long as somebody
        waits for it; then those in use that have had theirs are closed, and leave after their last answer.

        Raises:
            Problem: ``does_not_fit`` even if all that may leave had left; ``no_room``, 503; ``nobody_waits``.
        """
        async with self._turn:
            until = time.monotonic() + self._settings.on_demand_wait_seconds
            while True:
                plan, refusal = await self._try(deployment)
                if plan is not None:
                    return plan
                if time.monotonic() >= until:
                    raise refusal or Problem("no_room", 503, f"There was no room for {deployment.uid} in time.")
                await self._until_something_changes(deployment)

    async def _try(self, deployment: Deployment) -> tuple[SizedPlan | None, Problem | None]:
        host = await asyncio.to_thread(read_host)
        await self.use.settled()
        # From here on there is no other turn of the event loop: nobody who is idle now is asked before the doors close.
        now = self.beside(deployment.plan)
        best = deployment.sized(host, self.beside_those_that_stay(deployment.plan))
        here = self._without_leaving(deployment, best, host, now)
        if here is not None:
            return self._grant(deployment, here), None
        need, free = held_bytes(best), free_bytes(host, now)
        residents = [resident for resident in self.residents() if resident.uid != deployment.uid]
        if eviction.fits(need, free):
            return self._grant(deployment, best), None
        if not any(not resident.pinned for resident in residents):
            # Nobody can leave: what fits now is all that there will be.
            return self._grant(deployment, deployment.sized(host, now)), None
        try:
            leaving, refusal = eviction.who_leaves(deployment.uid, need, free, residents), None
        except Problem as problem:
            turn = self._settings.on_demand_turn_seconds
            leaving = eviction.whose_turn_ends(need, free, residents, now=time.monotonic(), turn_seconds=turn)
            refusal = problem
        lacking = "; ".join(eviction.size(count) for count in need.values())
        for other in self._deployments():
            if other.uid in leaving:
                self._close(other, f"evicted for {deployment.uid}, which needs {lacking}")
        return None, refusal

    def _without_leaving(self, deployment: Deployment, best: SizedPlan, host: Host, now: Occupancy) -> SizedPlan | None:
        """A plan as good as the best, perhaps on other devices, for which nobody has to leave."""
        if deployment.on_demand is None:
            return None
        try:
            here = deployment.sized(host, now)
        except Problem:
            return None
        same = (here.sizing.context_length, here.sizing.slots) == (best.sizing.context_length, best.sizing.slots)
        return here if same else None

    def _grant(self, deployment: Deployment, plan: SizedPlan) -> SizedPlan:
        deployment.grant(plan)
        return plan

    async def _until_something_changes(self, deployment: Deployment) -> None:
        """Until another model's state is another one, or a turn is over; and somebody must still wait for this one."""
        before = {resident.uid: resident.state for resident in self.residents()}
        until = time.monotonic() + self._settings.on_demand_turn_seconds
        while before == {resident.uid: resident.state for resident in self.residents()}:
            deployment.check_wanted()
            await asyncio.sleep(WAIT_SECONDS)
            await self.use.settled()
            if time.monotonic() >= until:
                return

    # -- going ----------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Send those away that have been idle for as long as they may; for ever."""
        while True:
            if self.residents():
                await self.use.settled()
            residents, now = self.residents(), time.monotonic()
            expired = eviction.who_expired(residents, now)
            for deployment in self._deployments():
                if deployment.uid in expired and deployment.on_demand is not None:
                    self._close(deployment, f"idle for {deployment.on_demand.ttl:g} s")
            left = [
                r.last_used + r.ttl - now for r in residents if r.state == "idle" and r.ttl and r.uid not in expired
            ]
            await asyncio.sleep(max(WAIT_SECONDS, min([WATCH_SECONDS, *left])))

    def _close(self, deployment: Deployment, why: str) -> None:
        if deployment.on_demand is not None and deployment.on_demand.leaving is None:
            deployment.leave(why)


def _held_plan(deployment: Deployment) -> SizedPlan | None:
    """The plan that memory is promised to."""
    plan = deployment.plan
    if deployment.problem is not None or not isinstance(plan, SizedPlan):
        return None
    return plan if deployment.on_demand is None or deployment.on_demand.granted else None
