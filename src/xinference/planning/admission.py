"""Which launch gets memory next, and which models leave for it. Pure: events in, named effects out.

The clock is a number: `now` is in seconds of one clock, as are all times here. `PlanT` is a plan with a size; the
scheduler knows nothing of it but its `Footprint` and whether it is as good as another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.planning import eviction
from xinference.planning.eviction import HOST, Bytes, Resident
from xinference.planning.occupancy import Footprint, Occupancy, free_bytes

PlanT = TypeVar("PlanT")
PlanT_contra = TypeVar("PlanT_contra", contravariant=True)


@dataclass(frozen=True)
class Candidate(Generic[PlanT]):
    """A launch that asks for memory."""

    uid: str
    on_demand: bool
    size: Callable[[Host, Occupancy], PlanT]
    """Its plan for what is available. Raises `Problem`, ``does_not_fit``."""
    priority: int = 0
    pinned: bool = False


@dataclass(frozen=True)
class Activity:
    """What the deployments do just now."""

    ready: frozenset[str]
    """Those with a replica that answers: what they hold is not free any more."""
    residents: tuple[Resident, ...]
    """Models on demand that hold memory; the scheduler fills in `Resident.holds` from its ledger."""


@dataclass(frozen=True)
class MemoryState(Activity):
    """The same with the host, read just now."""

    host: Host


class Effects(Protocol[PlanT_contra]):
    """All that the scheduler does to others."""

    def grant(self, uid: str, plan: PlanT_contra) -> None:
        """The memory of `plan` is promised to `uid`."""
        ...

    def evict(self, uid: str, reason: str, *, only_idle: bool) -> None:
        """`uid` is to leave after its last answer; with `only_idle` it may decline if it is in use meanwhile."""
        ...

    def refuse(self, uid: str, problem: Problem) -> None:
        """`uid` gets no memory: ``does_not_fit``, ``no_room`` or ``nobody_waits``."""
        ...

    def wake_at(self, when: float) -> None:
        """Call `AdmissionScheduler.run` again at that time, if no event comes first."""
        ...


class AdmissionScheduler(Generic[PlanT]):
    """Owns the ledger, which names the plan of each deployment that memory is promised to, and the queue.

    Events (`hold`, `release`, `ask`, `withdraw`, `declined`) only note what happened. `run` decides.
    """

    def __init__(
        self,
        effects: Effects[PlanT],
        footprint: Callable[[PlanT], Footprint],
        as_good: Callable[[PlanT, PlanT], bool],
        *,
        wait_seconds: float,
        turn_seconds: float,
        memory_limit: int = 0,
    ) -> None:
        """Args:
        footprint: memory that a plan takes.
        as_good: whether the first plan answers as much as the second, perhaps on other devices.
        wait_seconds: time that a candidate waits at the head of the queue before it is refused.
        turn_seconds: time that a model in use keeps its memory at least while a candidate waits.
        memory_limit: bytes of the host that all models together may take; 0: no limit.
        """
        self._effects = effects
        self._footprint = footprint
        self._as_good = as_good
        self._wait_seconds = wait_seconds
        self._turn_seconds = turn_seconds
        self._memory_limit = memory_limit
        self._ledger: dict[str, PlanT] = {}
        self._loading: dict[str, Candidate[PlanT]] = {}
        """Granted on demand, and perhaps not among the residents of a state yet."""
        self._leaving: set[str] = set()
        self._queue: dict[str, Candidate[PlanT]] = {}
        """In the order of arrival."""
        self._withdrawn: list[str] = []
        self._deadline: float | None = None
        """When the head of the queue is refused; None: it has not been looked at yet."""

    @property
    def ledger(self) -> dict[str, PlanT]:
        """The plans that memory is promised to, by uid."""
        return dict(self._ledger)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The candidates, first come first."""
        return tuple(self._queue)

    @property
    def undelivered(self) -> bool:
        """Whether `run` has something to tell, whatever the state of memory is."""
        return bool(self._withdrawn)

    # -- events -----------------------------------------------------------------------------------------------

    def hold(self, uid: str, plan: PlanT) -> None:
        """`uid` holds the memory of `plan` without having asked: it was adopted, or is launched and not on demand."""
        self._ledger[uid] = plan

    def release(self, uid: str) -> None:
        """`uid` holds nothing and asks for nothing any more: it was unloaded, has failed or has ended."""
        self._ledger.pop(uid, None)
        self._loading.pop(uid, None)
        self._leaving.discard(uid)
        self._remove(uid)
        self._withdrawn = [other for other in self._withdrawn if other != uid]

    def ask(self, candidate: Candidate[PlanT]) -> None:
        """A launch asks for memory: first come, first served."""
        self._queue[candidate.uid] = candidate

    def withdraw(self, uid: str) -> None:
        """Nobody waits for `uid` any more. If it was still in the queue, the next `run` refuses it."""
        if self._remove(uid):
            self._withdrawn.append(uid)

    def declined(self, uid: str) -> None:
        """`uid` was to leave if it was idle, and it is in use."""
        self._leaving.discard(uid)

    def refuse_first(self, problem: Problem) -> None:
        """The head of the queue cannot be served, for a reason that lies outside of memory."""
        if self._queue:
            self._refuse(next(iter(self._queue.values())), problem)

    # -- what is taken ----------------------------------------------------------------------------------------

    def occupancy_of_others(self, uid: str, activity: Activity, *, without: Collection[str] = ()) -> Occupancy:
        """Memory that was promised to all but `uid`; `without` names those that are treated as gone."""
        granted: Counter[int] = Counter()
        returned: Counter[int] = Counter()
        outstanding = promised = 0
        for other, plan in self._ledger.items():
            if other == uid:
                continue
            footprint = self._footprint(plan)
            on_host = footprint.held.get(HOST, 0)
            if other in without:
                later = {HOST: footprint.later}
                returned.update({d: max(0, count - later.get(d, 0)) for d, count in footprint.held.items()})
                continue
            granted.update({d: count for d, count in footprint.held.items() if d != HOST})
            promised += on_host
            # What a ready engine holds is not free any more; what it was promised beyond that, it may take at any time.
            outstanding += min(footprint.later, on_host) if other in activity.ready else on_host
        limit = self._memory_limit
        return Occupancy(
            granted,
            host_outstanding=outstanding,
            host_left=max(0, limit - promised) if limit else None,
            returned=returned,
        )

    def occupancy_for(self, uid: str, on_demand: bool, activity: Activity) -> Occupancy:
        """The same as if those models had left that would leave for `uid`.

        A model on demand is sized as if it had the room of all others on demand, whatever they do just now: it gets
        the same context at every load. Any other launch takes the room of idle ones.
        """
        leaving = {
            resident.uid
            for resident in self._residents(activity, besides=uid)
            if not resident.pinned and (on_demand or resident.state == "idle")
        }
        return self.occupancy_of_others(uid, activity, without=leaving)

    def _residents(self, activity: Activity, *, besides: str = "") -> list[Resident]:
        """The residents as the ledger knows them, with those that were granted memory and do not show it yet."""
        shown = {resident.uid: resident for resident in activity.residents}
        for uid, candidate in self._loading.items():
            shown.setdefault(uid, Resident(uid, "loading", {}, candidate.priority, candidate.pinned))
        return [self._resident(resident) for uid, resident in shown.items() if uid != besides]

    def _resident(self, shown: Resident) -> Resident:
        plan = self._ledger.get(shown.uid)
        state = "leaving" if shown.uid in self._leaving else shown.state
        return replace(shown, state=state, holds={} if plan is None else self._footprint(plan).held)

    # -- decisions --------------------------------------------------------------------------------------------

    def run(self, state: MemoryState, now: float) -> None:
        """Decide what can be decided now; the only method with effects.

        Residents that have been idle for longer than their time to live are evicted. Then the head of the queue is
        looked at, and the next one after each answer:

        1. It is on demand, and what is free now gives the best context and slots: it gets that.
        2. Its best plan fits into what is free now: it gets that.
        3. No resident can leave: it gets a plan for what is free now, or is refused.
        4. Idle residents suffice, and its deadline has not passed: they are evicted, unless they are in use by then.
        5. Residents suffice that are idle or have had their turn, and its deadline has not passed: they are evicted.
        6. Else it waits; if its deadline has passed, it is refused.

        A grant enters the ledger here, and an evicted resident counts as leaving until `release` or `declined`: no
        byte is promised twice, however late a deployment handles its message.
        """
        for uid in self._withdrawn:
            self._effects.refuse(uid, Problem(Code.NOBODY_WAITS, f"Nobody waits for {uid} any more."))
        self._withdrawn.clear()
        self._evict_expired(state, now)
        while self._queue:
            if self._deadline is None:
                self._deadline = now + self._wait_seconds
            if not self._serve(next(iter(self._queue.values())), state, now):
                break
        self._ask_for_wake(state, now)

    def _evict_expired(self, state: MemoryState, now: float) -> None:
        residents = self._residents(state)
        expired = eviction.who_expired(residents, now)
        for resident in residents:
            if resident.uid in expired:
                self._evict(resident, f"idle for {resident.ttl:g} s")

    def _serve(self, candidate: Candidate[PlanT], state: MemoryState, now: float) -> bool:
        """Whether the candidate has its answer; the numbers are those of `run`."""
        residents = self._residents(state, besides=candidate.uid)
        taken = self.occupancy_of_others(candidate.uid, state)
        try:
            best = candidate.size(state.host, self.occupancy_for(candidate.uid, candidate.on_demand, state))
            here = self._as_good_now(candidate, best, state.host, taken)
            if here is not None:  # 1
                return self._grant(candidate, here)
            need, free = self._footprint(best).held, free_bytes(state.host, taken)
            if eviction.fits(need, free):  # 2
                return self._grant(candidate, best)
            if all(resident.pinned for resident in residents):  # 3
                return self._grant(candidate, candidate.size(state.host, taken))
        except Problem as problem:
            return self._refuse(candidate, problem)
        return self._wait(candidate, need, free, residents, now)

    def _as_good_now(self, candidate: Candidate[PlanT], best: PlanT, host: Host, taken: Occupancy) -> PlanT | None:
        """A plan as good as the best one for which nobody has to leave."""
        if not candidate.on_demand:
            return None
        try:
            here = candidate.size(host, taken)
        except Problem:
            return None
        return here if self._as_good(here, best) else None

    def _wait(
        self, candidate: Candidate[PlanT], need: Bytes, free: Bytes, residents: Sequence[Resident], now: float
    ) -> bool:
        """Make room for the candidate, or refuse it at its deadline."""
        assert self._deadline is not None
        refusal: Problem | None = None
        try:
            leaving = eviction.who_leaves(candidate.uid, need, free, residents)  # 4
        except Problem as problem:
            refusal = problem
            leaving = eviction.whose_turn_ends(need, free, residents, now=now, turn_seconds=self._turn_seconds)  # 5
        if now >= self._deadline:  # 6
            late = Problem(Code.NO_ROOM, f"There was no room for {candidate.uid} in time.")
            return self._refuse(candidate, refusal or late)
        lacking = "; ".join(eviction.size(count) for count in need.values())
        for resident in residents:
            if resident.uid in leaving:
                self._evict(resident, f"evicted for {candidate.uid}, which needs {lacking}")
        return False

    def _ask_for_wake(self, state: MemoryState, now: float) -> None:
        residents = self._residents(state)
        times = [when for resident in residents if (when := _expires_at(resident, now)) is not None]
        if self._queue and self._deadline is not None:
            # Memory may also become free without an event, if another program ends: look once a turn.
            times += [self._deadline, now + self._turn_seconds]
            turns = [r.ready_since + self._turn_seconds for r in residents if r.state == "in_use"]
            times += [turn for turn in turns if turn > now]
        if times:
            self._effects.wake_at(min(times))

    # -- effects ----------------------------------------------------------------------------------------------

    def _grant(self, candidate: Candidate[PlanT], plan: PlanT) -> bool:
        self._remove(candidate.uid)
        self._ledger[candidate.uid] = plan
        if candidate.on_demand:
            self._loading[candidate.uid] = candidate
        self._effects.grant(candidate.uid, plan)
        return True

    def _refuse(self, candidate: Candidate[PlanT], problem: Problem) -> bool:
        self._remove(candidate.uid)
        self._effects.refuse(candidate.uid, problem)
        return True

    def _evict(self, resident: Resident, reason: str) -> None:
        self._leaving.add(resident.uid)
        self._effects.evict(resident.uid, reason, only_idle=resident.state == "idle")

    def _remove(self, uid: str) -> bool:
        """Whether it was in the queue."""
        if next(iter(self._queue), None) == uid:
            self._deadline = None
        return self._queue.pop(uid, None) is not None


def _expires_at(resident: Resident, now: float) -> float | None:
    """The earliest time at which a resident can have been idle for its time to live; None: never, or after an event."""
    if resident.ttl <= 0 or resident.state not in ("idle", "in_use"):
        return None
    return resident.ttl + (resident.last_used if resident.state == "idle" else now)
