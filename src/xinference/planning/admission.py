"""Decides which launch gets memory next, and which models are evicted for it. Pure: events in, effects out.

All times are seconds of one clock, also `now`. `PlanT` is a plan with a size: the scheduler uses only its `Footprint`
and whether it is as good as another plan.
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

#: The reason of an unload that no other model has caused begins with this.
IDLE_FOR = "idle for "
PlanT = TypeVar("PlanT")
PlanT_contra = TypeVar("PlanT_contra", contravariant=True)


@dataclass(frozen=True)
class Candidate(Generic[PlanT]):
    """A launch in the queue for memory."""

    uid: str
    on_demand: bool
    size: Callable[[Host, Occupancy], PlanT]
    """Makes a plan for the available memory. Raises `Problem`, ``does_not_fit``."""
    priority: int = 0
    pinned: bool = False


@dataclass(frozen=True)
class Activity:
    """The current state of the deployments."""

    ready: frozenset[str]
    """The deployments with a ready replica: the host's free memory no longer includes their memory."""
    residents: tuple[Resident, ...]
    """The on-demand models that have memory; the scheduler sets `Resident.reserved` from its ledger."""


@dataclass(frozen=True)
class MemoryState(Activity):
    """The current state of the deployments and of the host."""

    host: Host


class Effects(Protocol[PlanT_contra]):
    """The decisions of the scheduler, as calls."""

    def grant(self, uid: str, plan: PlanT_contra) -> None:
        """The memory of `plan` is reserved for `uid`."""
        ...

    def evict(self, uid: str, reason: str, *, only_idle: bool) -> None:
        """Unload `uid` after its last answer; with `only_idle`, `uid` may decline if it is in use meanwhile."""
        ...

    def refuse(self, uid: str, problem: Problem) -> None:
        """No memory is reserved for `uid`: ``does_not_fit``, ``no_room`` or ``nobody_waits``."""
        ...

    def wake_at(self, when: float) -> None:
        """Call `AdmissionScheduler.run` again at this time, unless an event comes first."""
        ...


class AdmissionScheduler(Generic[PlanT]):
    """Owns the queue of candidates and the ledger, which has the plan of each deployment with reserved memory.

    Events (`hold`, `release`, `ask`, `withdraw`, `declined`) are only recorded. `run` decides.
    """

    def __init__(
        self,
        effects: Effects[PlanT],
        footprint: Callable[[PlanT], Footprint],
        is_as_good: Callable[[PlanT, PlanT], bool],
        *,
        wait_seconds: float,
        turn_seconds: float,
        memory_limit: int = 0,
        saves_states: bool = False,
    ) -> None:
        """Args:
        footprint: the memory of a plan.
        is_as_good: whether the first plan answers as much as the second one; its devices may be other ones.
        wait_seconds: maximum time that a candidate waits at the head of the queue.
        turn_seconds: minimum time that a model in use stays in memory while a candidate waits.
        memory_limit: maximum bytes of the host for all models together; 0: no limit.
        saves_states: whether engines may save the states of prompts.
        """
        self._effects = effects
        self._footprint = footprint
        self._is_as_good = is_as_good
        self._wait_seconds = wait_seconds
        self._turn_seconds = turn_seconds
        self._memory_limit = memory_limit
        self._saves_states = saves_states
        self._ledger: dict[str, PlanT] = {}
        self._loading: dict[str, Candidate[PlanT]] = {}
        """On-demand candidates that were granted memory; they may be missing in `Activity.residents` at first."""
        self._evicted: set[str] = set()
        self._queue: dict[str, Candidate[PlanT]] = {}
        """In the order of arrival."""
        self._withdrawn: list[str] = []
        self._deadline: float | None = None
        """Time at which the head of the queue is refused; None: `run` has not considered it yet."""

    @property
    def ledger(self) -> dict[str, PlanT]:
        """The plans with reserved memory, by uid."""
        return dict(self._ledger)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The uids in the queue, in the order of arrival."""
        return tuple(self._queue)

    @property
    def has_withdrawn(self) -> bool:
        """Whether the next `run` refuses withdrawn candidates, whatever the state of the memory is."""
        return bool(self._withdrawn)

    # -- events -----------------------------------------------------------------------------------------------

    def hold(self, uid: str, plan: PlanT) -> None:
        """Reserve memory without the queue: `uid` was adopted, or its launch is not on demand."""
        self._ledger[uid] = plan

    def release(self, uid: str) -> None:
        """Release the memory of `uid`, and remove it from the queue: it was unloaded, has failed or has ended."""
        self._ledger.pop(uid, None)
        self._loading.pop(uid, None)
        self._evicted.discard(uid)
        self._remove(uid)
        self._withdrawn = [other for other in self._withdrawn if other != uid]

    def ask(self, candidate: Candidate[PlanT]) -> None:
        """Add a candidate to the end of the queue."""
        self._queue[candidate.uid] = candidate

    def withdraw(self, uid: str) -> None:
        """Remove `uid` from the queue, because no request waits for it any more; the next `run` refuses it."""
        if self._remove(uid):
            self._withdrawn.append(uid)

    def declined(self, uid: str) -> None:
        """`uid` has declined its eviction, because it is in use."""
        self._evicted.discard(uid)

    def refuse_first(self, problem: Problem) -> None:
        """Refuse the head of the queue for a reason other than memory."""
        if self._queue:
            self._refuse(next(iter(self._queue.values())), problem)

    # -- occupancy --------------------------------------------------------------------------------------------

    def occupancy_of_others(
        self,
        uid: str,
        activity: Activity,
        *,
        without: Collection[str] = (),
        footprint_of: Callable[[PlanT], Footprint] | None = None,
    ) -> Occupancy:
        """The memory reserved for all deployments except `uid`; those in `without` are treated as unloaded.

        `footprint_of`: that of a plan on another node, for which `memory_limit` does not count.
        """
        gpus: Counter[int] = Counter()
        reclaimable: Counter[int] = Counter()
        host_outstanding = host_reserved = 0
        for other, plan in self._ledger.items():
            if other == uid:
                continue
            footprint = (footprint_of or self._footprint)(plan)
            on_host = footprint.reserved.get(HOST, 0)
            if other in without:
                later = {HOST: footprint.later_bytes}
                reclaimable.update({d: max(0, count - later.get(d, 0)) for d, count in footprint.reserved.items()})
                continue
            gpus.update({d: count for d, count in footprint.reserved.items() if d != HOST})
            host_reserved += on_host
            # A ready engine has allocated its memory, except the part that it allocates later.
            host_outstanding += min(footprint.later_bytes, on_host) if other in activity.ready else on_host
        limit = self._memory_limit if footprint_of is None else 0
        return Occupancy(
            gpus,
            host_outstanding=host_outstanding,
            host_remaining=max(0, limit - host_reserved) if limit else None,
            reclaimable=reclaimable,
            saves_states=self._saves_states,
        )

    def occupancy_for(
        self, uid: str, on_demand: bool, activity: Activity, *, without: Collection[str] = ()
    ) -> Occupancy:
        """The result of `occupancy_of_others` if the models that can be evicted for `uid` are treated as unloaded.

        Those in `without` are, too.

        For an on-demand model, these are all other on-demand models that are not pinned, whatever their state: the
        model has the same context at every load. For any other launch, these are the idle ones.
        """
        evictable = {
            resident.uid
            for resident in self._residents(activity, excluded=uid)
            if not resident.pinned and (on_demand or resident.state == "idle")
        }
        return self.occupancy_of_others(uid, activity, without=evictable | set(without))

    def _residents(self, activity: Activity, *, excluded: str = "") -> list[Resident]:
        """The residents with their reserved memory, and the granted candidates that are not among them yet."""
        residents = {resident.uid: resident for resident in activity.residents}
        for uid, candidate in self._loading.items():
            residents.setdefault(uid, Resident(uid, "loading", {}, candidate.priority, candidate.pinned))
        return [self._with_ledger(resident) for uid, resident in residents.items() if uid != excluded]

    def _with_ledger(self, resident: Resident) -> Resident:
        plan = self._ledger.get(resident.uid)
        state = "unloading" if resident.uid in self._evicted else resident.state
        return replace(resident, state=state, reserved={} if plan is None else self._footprint(plan).reserved)

    # -- decisions --------------------------------------------------------------------------------------------

    def run(self, state: MemoryState, now: float) -> None:
        """Make all decisions that are possible now. Only this method and `refuse_first` have effects.

        Residents that have been idle for their time to live are evicted. Then the head of the queue is considered,
        and the next candidate after each grant or refusal:

        1. An on-demand candidate whose plan for the free memory is as good as its best plan: it is granted that plan.
        2. The best plan fits into the free memory: it is granted.
        3. No resident can be evicted: the candidate is granted a plan for the free memory, or is refused.
        4. Idle residents suffice, before the deadline: they are evicted; those in use by then may decline.
        5. Residents that are idle, or in use for longer than a turn, suffice before the deadline: they are evicted.
        6. Otherwise the candidate waits; after its deadline it is refused.

        A grant is in the ledger before its effect, and an evicted resident counts as unloading until `release` or
        `declined`: no memory is reserved twice, even if a deployment handles its message late.
        """
        for uid in self._withdrawn:
            self._effects.refuse(uid, Problem(Code.NOBODY_WAITS, f"No request waits for {uid} any more."))
        self._withdrawn.clear()
        self._evict_expired(state, now)
        while self._queue:
            if self._deadline is None:
                self._deadline = now + self._wait_seconds
            if not self._serve(next(iter(self._queue.values())), state, now):
                break
        self._set_wake_time(state, now)

    def _evict_expired(self, state: MemoryState, now: float) -> None:
        residents = self._residents(state)
        expired = eviction.find_expired(residents, now)
        for resident in residents:
            if resident.uid in expired:
                self._evict(resident, f"{IDLE_FOR}{resident.ttl:g} s")

    def _serve(self, candidate: Candidate[PlanT], state: MemoryState, now: float) -> bool:
        """Grant memory to the candidate or refuse it; False: it waits. The numbers are those of `run`."""
        residents = self._residents(state, excluded=candidate.uid)
        occupancy = self.occupancy_of_others(candidate.uid, state)
        try:
            best = candidate.size(state.host, self.occupancy_for(candidate.uid, candidate.on_demand, state))
            equal = self._plan_without_eviction(candidate, best, state.host, occupancy)
            if equal is not None:  # 1
                return self._grant(candidate, equal)
            need, free = self._footprint(best).reserved, free_bytes(state.host, occupancy)
            if eviction.fits(need, free):  # 2
                return self._grant(candidate, best)
            if all(resident.pinned for resident in residents):  # 3
                return self._grant(candidate, candidate.size(state.host, occupancy))
        except Problem as problem:
            return self._refuse(candidate, problem)
        return self._evict_for(candidate, need, free, residents, now)

    def _plan_without_eviction(
        self, candidate: Candidate[PlanT], best: PlanT, host: Host, occupancy: Occupancy
    ) -> PlanT | None:
        """A plan for the free memory that is as good as the best plan; None: there is none, or it is not on demand."""
        if not candidate.on_demand:
            return None
        try:
            plan = candidate.size(host, occupancy)
        except Problem:
            return None
        return plan if self._is_as_good(plan, best) else None

    def _evict_for(
        self, candidate: Candidate[PlanT], need: Bytes, free: Bytes, residents: Sequence[Resident], now: float
    ) -> bool:
        """Evict residents for the candidate; after its deadline, refuse it. Returns whether it is refused."""
        assert self._deadline is not None
        refusal: Problem | None = None
        try:
            chosen = eviction.choose_idle(candidate.uid, need, free, residents)  # 4
        except Problem as problem:
            refusal = problem
            chosen = eviction.choose_after_turns(need, free, residents, now=now, turn_seconds=self._turn_seconds)  # 5
        if now >= self._deadline:  # 6
            late = Problem(Code.NO_ROOM, f"The memory for {candidate.uid} did not become free in time.")
            return self._refuse(candidate, refusal or late)
        needed = "; ".join(eviction.format_size(count) for count in need.values())
        for resident in residents:
            if resident.uid in chosen:
                self._evict(resident, f"evicted for {candidate.uid}, which needs {needed}")
        return False

    def _set_wake_time(self, state: MemoryState, now: float) -> None:
        residents = self._residents(state)
        times = [when for resident in residents if (when := _expires_at(resident, now)) is not None]
        if self._queue and self._deadline is not None:
            # Memory also becomes free without an event, when another program ends: read the host once a turn.
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
        self._evicted.add(resident.uid)
        self._effects.evict(resident.uid, reason, only_idle=resident.state == "idle")

    def _remove(self, uid: str) -> bool:
        """Remove `uid` from the queue; returns whether it was in the queue."""
        if next(iter(self._queue), None) == uid:
            self._deadline = None
        return self._queue.pop(uid, None) is not None


def _expires_at(resident: Resident, now: float) -> float | None:
    """The earliest time at which a resident can have been idle for its time to live.

    None: it has no time to live, or it can expire only after an event.
    """
    if resident.ttl <= 0 or resident.state not in ("idle", "in_use"):
        return None
    return resident.ttl + (resident.last_used if resident.state == "idle" else now)
