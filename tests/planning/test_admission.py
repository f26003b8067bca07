"""Which launch gets memory next, and which models leave for it: numbers and a list as `Effects`, and no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.examples import examples
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.hardware.nvidia import Gpu
from xinference.planning.admission import AdmissionScheduler, Candidate, MemoryState
from xinference.planning.eviction import HOST, Bytes, Resident, State
from xinference.planning.memory import USABLE_SHARE as USABLE_OF_HOST
from xinference.planning.occupancy import Footprint, Occupancy, free_bytes
from xinference.planning.placement import USABLE_SHARE as USABLE_OF_GPU

WAIT, TURN = 60.0, 5.0


@dataclass(frozen=True)
class Plan:
    """A size, as the scheduler sees one; `context` is what the user gets."""

    reserved: Bytes
    context: int
    later: int = 0


def flexible(device: int, best: int, least: int | None = None, later: int = 0) -> Callable[[Host, Occupancy], Plan]:
    """Takes `best` bytes of a device if they are available, else what there is, down to `least`."""
    floor = best if least is None else least

    def size(host: Host, occupancy: Occupancy) -> Plan:
        free = free_bytes(host, occupancy).get(device, 0)
        if free < floor:
            raise Problem(Code.DOES_NOT_FIT, f"{floor} do not fit into {free}.")
        return Plan({device: min(best, free)}, min(best, free), later)

    return size


def fixed(held: Bytes) -> Callable[[Host, Occupancy], Plan]:
    """A launch that was sized before."""
    return lambda host, occupancy: Plan(held, 1)


@dataclass
class Recorder:
    """`Effects` as a list."""

    said: list[tuple[Any, ...]] = field(default_factory=list)
    wake: float | None = None

    def grant(self, uid: str, plan: Plan) -> None:
        self.said.append(("grant", uid, plan))

    def evict(self, uid: str, reason: str, *, only_idle: bool) -> None:
        self.said.append(("evict", uid, only_idle))

    def refuse(self, uid: str, problem: Problem) -> None:
        self.said.append(("refuse", uid, problem.code))

    def wake_at(self, when: float) -> None:
        self.wake = when


class Memory:
    """A scheduler, and a machine with so many bytes that models may take."""

    def __init__(self, free: int = 100, gpus: Mapping[int, int] | None = None, limit: int = 0) -> None:
        self.effects = Recorder()
        self.scheduler = AdmissionScheduler[Plan](
            self.effects,
            lambda plan: Footprint(plan.reserved, plan.later),
            lambda plan, best: plan.context == best.context,
            wait_seconds=WAIT,
            turn_seconds=TURN,
            memory_limit=limit,
        )
        self.free = free
        self.gpus = dict(gpus or {})
        self.residents: dict[str, Resident] = {}
        self.ready: set[str] = set()

    def load(self, uid: str, held: Bytes | int, state: State = "idle", **terms: Any) -> None:
        """A model on demand that is there already; its bytes are not free."""
        held = {HOST: held} if isinstance(held, int) else held
        self.scheduler.hold(uid, Plan(held, 1))
        self.residents[uid] = Resident(uid, state, {}, **terms)
        self.ready.add(uid)

    def leave(self, uid: str) -> None:
        """It has left: its bytes are free again."""
        self.free += self.scheduler.ledger[uid].reserved.get(HOST, 0)
        del self.residents[uid]
        self.ready.discard(uid)
        self.scheduler.release(uid)

    def ask(self, uid: str, size: Callable[[Host, Occupancy], Plan], *, on_demand: bool = True, **terms: Any) -> None:
        self.scheduler.ask(Candidate(uid, on_demand, size, **terms))

    def state(self) -> MemoryState:
        # What may be taken is a share of what is free; here the numbers are what may be taken.
        whole = -int(-self.free // USABLE_OF_HOST)
        gpus = tuple(
            Gpu(index, "gpu", 10 * free + 10, -int(-free // USABLE_OF_GPU)) for index, free in self.gpus.items()
        )
        host = Host(1, 10 * whole + 10, whole, gpus)
        return MemoryState(frozenset(self.ready), tuple(self.residents.values()), host)

    def run(self, now: float = 0.0) -> list[tuple[Any, ...]]:
        """The effects of one run, without the bytes of a grant."""
        self.effects.said.clear()
        self.effects.wake = None
        self.scheduler.run(self.state(), now)
        return [(said[0], said[1]) if said[0] == "grant" else said for said in self.effects.said]

    def granted(self, uid: str) -> Bytes:
        return self.scheduler.ledger[uid].reserved


# -- the six branches ---------------------------------------------------------------------------------------------


def test_1_a_model_on_demand_gets_what_is_as_good_as_the_best_and_nobody_leaves() -> None:
    memory = Memory(gpus={0: 10, 1: 50})
    memory.load("there", {0: 40})

    def first_that_fits(host: Host, occupancy: Occupancy) -> Plan:
        free = free_bytes(host, occupancy)
        return Plan({min(device for device in (0, 1) if free[device] >= 40): 40}, 40)

    memory.ask("new", first_that_fits)
    assert memory.run() == [("grant", "new")]
    assert memory.granted("new") == {1: 40}, "the best plan would have taken the device of the other"


def test_2_the_best_plan_is_granted_where_it_fits() -> None:
    memory = Memory(50)
    memory.ask("new", fixed({HOST: 50}), on_demand=False)
    assert memory.run() == [("grant", "new")]
    assert memory.granted("new") == {HOST: 50}


def test_3_where_nobody_can_leave_the_plan_is_for_what_is_free() -> None:
    memory = Memory(30)
    memory.load("pinned", 70, pinned=True)
    memory.ask("new", flexible(HOST, 90, 20))
    assert memory.run() == [("grant", "new")]
    assert memory.granted("new") == {HOST: 30}


def test_3_where_nobody_can_leave_and_it_does_not_fit_it_is_refused() -> None:
    memory = Memory(10)
    memory.load("pinned", 70, pinned=True)
    memory.ask("new", flexible(HOST, 90, 20))
    assert memory.run() == [("refuse", "new", "does_not_fit")]
    assert memory.scheduler.waiting == ()


def test_4_an_idle_resident_is_evicted_and_may_decline() -> None:
    memory = Memory(10)
    memory.load("idle", 70)
    memory.ask("new", flexible(HOST, 60))
    assert memory.run() == [("evict", "idle", True)]
    assert memory.scheduler.waiting == ("new",)


def test_5_a_resident_in_use_is_evicted_after_its_turn_and_can_not_decline() -> None:
    memory = Memory(10)
    memory.load("busy", 70, "in_use", ready_since=10.0)
    memory.ask("new", flexible(HOST, 60))
    assert memory.run(14.9) == []
    assert memory.effects.wake == 15.0
    assert memory.run(15.0) == [("evict", "busy", False)]


def test_6_it_waits_and_is_refused_at_its_deadline() -> None:
    memory = Memory(10)
    memory.load("loads", 70, "loading")
    memory.ask("new", flexible(HOST, 60))
    assert memory.run(0.0) == []
    assert memory.run(WAIT - 0.1) == []
    assert memory.effects.wake == WAIT
    assert memory.run(WAIT) == [("refuse", "new", "no_room")]


# -- the queue ----------------------------------------------------------------------------------------------------


def test_two_candidates_keep_their_order() -> None:
    memory = Memory(10)
    memory.load("idle", 70)
    memory.ask("first", flexible(HOST, 60))
    memory.ask("second", flexible(HOST, 5))
    assert memory.run() == [("evict", "idle", True)], "the second would fit, and comes after the first"
    memory.leave("idle")
    assert memory.run() == [("grant", "first"), ("grant", "second")]


def test_two_grants_in_one_run_see_each_other() -> None:
    memory = Memory(100)
    memory.ask("first", flexible(HOST, 60))
    memory.ask("second", flexible(HOST, 60))
    assert memory.run() == [("grant", "first")]
    memory.ask("third", flexible(HOST, 10))
    assert memory.run() == []
    assert memory.scheduler.waiting == ("second", "third")


def test_a_grant_that_no_deployment_has_handled_yet_may_leave_later() -> None:
    memory = Memory(100)
    memory.ask("first", flexible(HOST, 60))
    memory.ask("second", flexible(HOST, 60, 10))
    assert memory.run() == [("grant", "first")], "the second waits for the first, and takes no smaller plan"


def test_a_candidate_withdrawn_at_the_head_lets_the_next_in() -> None:
    memory = Memory(10)
    memory.load("loads", 70, "loading")
    memory.ask("first", flexible(HOST, 60))
    memory.ask("second", flexible(HOST, 5))
    assert memory.run() == []
    memory.scheduler.withdraw("first")
    assert memory.scheduler.has_withdrawn
    assert memory.run() == [("refuse", "first", "nobody_waits"), ("grant", "second")]


def test_a_candidate_that_was_granted_can_not_be_withdrawn() -> None:
    memory = Memory(100)
    memory.ask("first", flexible(HOST, 60))
    assert memory.run() == [("grant", "first")]
    memory.scheduler.withdraw("first")
    assert memory.run() == [] and memory.granted("first") == {HOST: 60}


def test_a_candidate_that_has_ended_leaves_the_queue_and_is_told_nothing() -> None:
    memory = Memory(10)
    memory.load("loads", 70, "loading")
    memory.ask("first", flexible(HOST, 60))
    memory.scheduler.withdraw("first")
    memory.scheduler.release("first")
    assert memory.run() == []


def test_each_candidate_has_its_own_time_at_the_head() -> None:
    memory = Memory(10)
    memory.load("loads", 70, "loading")
    memory.ask("first", flexible(HOST, 60))
    memory.ask("second", flexible(HOST, 60))
    memory.run(0.0)
    assert memory.run(WAIT) == [("refuse", "first", "no_room")]
    assert memory.run(2 * WAIT - 1) == []
    assert memory.run(2 * WAIT) == [("refuse", "second", "no_room")]


def test_one_that_fits_nowhere_is_refused_and_the_next_is_served() -> None:
    memory = Memory(50)
    memory.ask("large", flexible(HOST, 1000))
    memory.ask("small", flexible(HOST, 10))
    assert memory.run() == [("refuse", "large", "does_not_fit"), ("grant", "small")]


def test_the_first_can_be_refused_for_another_reason() -> None:
    memory = Memory(50)
    memory.ask("first", flexible(HOST, 10))
    memory.ask("second", flexible(HOST, 10))
    memory.scheduler.refuse_first(Problem(Code.INTERNAL_ERROR, "A defect."))
    assert memory.effects.said == [("refuse", "first", "internal_error")]
    assert memory.scheduler.waiting == ("second",)


# -- evictions ----------------------------------------------------------------------------------------------------


def test_a_pinned_resident_stays() -> None:
    memory = Memory(10)
    memory.load("pinned", 70, pinned=True, last_used=0)
    memory.load("idle", 70, last_used=9)
    memory.ask("new", flexible(HOST, 60))
    assert memory.run() == [("evict", "idle", True)]


def test_an_evicted_resident_counts_as_free_only_when_it_is_released() -> None:
    memory = Memory(10)
    memory.load("idle", 70)
    memory.ask("new", flexible(HOST, 60))
    memory.run()
    assert memory.run(1.0) == [], "it is not evicted twice, and its memory is not given away yet"
    memory.leave("idle")
    assert memory.run(2.0) == [("grant", "new")]


def test_an_evicted_resident_that_takes_too_long_does_not_hold_up_the_deadline() -> None:
    memory = Memory(10)
    memory.load("idle", 70)
    memory.ask("new", flexible(HOST, 60))
    memory.run(0.0)
    assert memory.run(WAIT) == [("refuse", "new", "no_room")]


def test_nobody_is_evicted_for_a_candidate_that_is_refused_in_the_same_run() -> None:
    memory = Memory(10)
    memory.load("busy", 70, "loading")
    memory.ask("new", flexible(HOST, 60))
    memory.run(0.0)
    memory.load("busy", 70, "idle")
    assert memory.run(WAIT) == [("refuse", "new", "no_room")]


def test_a_declined_eviction_chooses_another() -> None:
    memory = Memory(10)
    memory.load("older", 70, last_used=1)
    memory.load("newer", 70, last_used=2)
    memory.ask("new", flexible(HOST, 60))
    assert memory.run() == [("evict", "older", True)]
    memory.load("older", 70, "in_use", last_used=1, ready_since=100)
    memory.scheduler.declined("older")
    assert memory.run() == [("evict", "newer", True)]


def test_enough_that_leaves_already_spares_the_others() -> None:
    memory = Memory(10)
    memory.load("unloading", 70, "unloading")
    memory.load("idle", 70)
    memory.ask("new", flexible(HOST, 60))
    assert memory.run() == []


def test_idle_ones_are_asked_first_where_turns_are_over_too() -> None:
    memory = Memory(10)
    memory.load("idle", 20)
    memory.load("busy", 40, "in_use", ready_since=0)
    memory.ask("new", flexible(HOST, 60))
    assert memory.run(TURN) == [("evict", "idle", True), ("evict", "busy", False)]


def test_a_launch_that_is_not_on_demand_takes_the_room_of_idle_ones() -> None:
    memory = Memory(10)
    memory.load("idle", 70)
    memory.scheduler.hold("normal", Plan({HOST: 60}, 1))
    memory.ask("normal", fixed({HOST: 60}), on_demand=False)
    assert memory.run() == [("evict", "idle", True)]
    memory.leave("idle")
    assert memory.run() == [("grant", "normal")]


def test_a_launch_that_was_sized_already_is_granted_that_where_nobody_can_leave() -> None:
    memory = Memory(10)
    memory.ask("normal", fixed({HOST: 60}), on_demand=False)
    assert memory.run() == [("grant", "normal")]


# -- time to live and waking --------------------------------------------------------------------------------------


def test_a_resident_is_evicted_when_its_time_to_live_is_over() -> None:
    memory = Memory(100)
    memory.load("short", 10, last_used=0.0, ttl=10)
    memory.load("long", 10, last_used=0.0, ttl=100)
    memory.load("for ever", 10, last_used=0.0)
    assert memory.run(9.9) == [] and memory.effects.wake == 10.0
    assert memory.run(10.0) == [("evict", "short", True)]
    assert memory.effects.wake == 100.0
    assert memory.run(11.0) == [], "it is on its way out"


def test_a_resident_in_use_is_looked_at_again_when_it_may_have_expired() -> None:
    memory = Memory(100)
    memory.load("busy", 10, "in_use", last_used=0.0, ttl=10)
    assert memory.run(50.0) == [] and memory.effects.wake == 60.0


def test_one_that_loads_expires_after_an_event_only() -> None:
    memory = Memory(100)
    memory.load("loads", 10, "loading", ttl=10)
    assert memory.run(50.0) == [] and memory.effects.wake is None


def test_who_waits_is_looked_at_once_a_turn_as_memory_becomes_free_elsewhere() -> None:
    memory = Memory(10)
    memory.load("loads", 70, "loading")
    memory.ask("new", flexible(HOST, 60))
    assert memory.run(3.0) == [] and memory.effects.wake == 3.0 + TURN
    memory.free = 60
    assert memory.run(8.0) == [("grant", "new")] and memory.effects.wake is None


# -- the ledger ---------------------------------------------------------------------------------------------------


def test_what_was_promised_and_is_not_taken_yet_is_not_free() -> None:
    memory = Memory(100)
    memory.scheduler.hold("starting", Plan({HOST: 40}, 1, later=10))
    state = memory.state()
    assert memory.scheduler.occupancy_of_others("new", state) == Occupancy(host_outstanding=40)
    assert memory.scheduler.occupancy_of_others("starting", state) == Occupancy()
    memory.ready.add("starting")
    assert memory.scheduler.occupancy_of_others("new", memory.state()) == Occupancy(host_outstanding=10)


def test_a_limit_of_all_models_together_counts_what_was_promised() -> None:
    memory = Memory(1000, limit=100)
    memory.load("there", 70, pinned=True)
    memory.ask("new", flexible(HOST, 60, 10))
    assert memory.run() == [("grant", "new")]
    assert memory.granted("new") == {HOST: 30}
    assert memory.scheduler.occupancy_of_others("x", memory.state()).host_remaining == 0


def test_a_model_on_demand_is_sized_as_if_all_others_on_demand_had_left() -> None:
    memory = Memory(10)
    memory.load("idle", 20)
    memory.load("busy", 30, "in_use")
    memory.load("pinned", 40, pinned=True)
    occupancy = memory.scheduler.occupancy_for("new", True, memory.state())
    assert occupancy.reclaimable == {HOST: 50}
    assert memory.scheduler.occupancy_for("new", False, memory.state()).reclaimable == {HOST: 20}


def test_each_device_has_its_own_bytes() -> None:
    memory = Memory(10, gpus={0: 10, 1: 10})
    memory.load("first", {0: 40})
    memory.load("second", {1: 40}, last_used=-1)
    memory.ask("new", flexible(0, 30))
    assert memory.run() == [("evict", "first", True)]


# -- every order of events ----------------------------------------------------------------------------------------

UIDS = ["a", "b", "c", "d", "e"]
CAPACITY: Bytes = {HOST: 100, 0: 50, 1: 50}


class Deployment:
    """The other side: it handles its messages one by one, some time after they were sent."""

    def __init__(self) -> None:
        self.inbox: list[tuple[Any, ...]] = []
        self.state: State | None = None
        self.queued = False
        self.taken = False
        self.evicted = False
        """No request comes any more; it leaves when the last one has ended."""
        self.in_flight = 0
        self.last_used = self.ready_since = 0.0
        self.pinned = False


class Orders(RuleBasedStateMachine):
    """Asks, releases and changes of state in any order, and the effects handled late."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.there = {uid: Deployment() for uid in UIDS}
        self.scheduler = AdmissionScheduler[Plan](
            self,
            lambda plan: Footprint(plan.reserved, plan.later),
            lambda plan, best: plan.context == best.context,
            wait_seconds=WAIT,
            turn_seconds=TURN,
        )
        self.this_run: list[tuple[str, str]] = []

    # -- Effects

    def grant(self, uid: str, plan: Plan) -> None:
        self.this_run.append(("grant", uid))
        self.there[uid].inbox.append(("grant", plan))

    def evict(self, uid: str, reason: str, *, only_idle: bool) -> None:
        one = self.there[uid]
        assert not one.pinned or "idle for" in reason
        assert one.state in ("idle", "in_use"), "it neither loads nor leaves already"
        if only_idle:
            assert one.in_flight == 0, "nothing in use is evicted"
        else:
            assert self.now - one.ready_since >= TURN, "one in use has its turn"
        self.this_run.append(("evict", uid))
        one.inbox.append(("evict", only_idle))

    def refuse(self, uid: str, problem: Problem) -> None:
        self.there[uid].inbox.append(("refuse", problem.code))

    def wake_at(self, when: float) -> None:
        assert when > self.now

    # -- what happens

    def machine(self) -> MemoryState:
        free = dict(CAPACITY)
        for uid, one in self.there.items():
            if one.taken:
                plan = self.scheduler.ledger[uid]
                for device, count in plan.reserved.items():
                    free[device] -= count - plan.later * (device == HOST)
        gpus = tuple(Gpu(index, "gpu", CAPACITY[index], free[index]) for index in (0, 1))
        host = Host(1, CAPACITY[HOST], free[HOST], gpus)
        residents = tuple(
            Resident(uid, one.state, {}, 0, one.pinned, one.last_used, one.ready_since)
            for uid, one in self.there.items()
            if one.state is not None
        )
        return MemoryState(frozenset(uid for uid, one in self.there.items() if one.taken), residents, host)

    def free_uids(self) -> list[str]:
        return [uid for uid, one in self.there.items() if one.state is None and not one.queued and not one.inbox]

    @precondition(lambda self: self.free_uids())
    @rule(data=st.data(), device=st.sampled_from([HOST, 0, 1]), best=st.integers(1, 60), share=st.floats(0.1, 1.0))
    def ask(self, data: st.DataObject, device: int, best: int, share: float) -> None:
        """A model on demand is asked for; part of its memory is taken only later."""
        uid = data.draw(st.sampled_from(self.free_uids()))
        self.there[uid].pinned = data.draw(st.integers(0, 9)) == 0
        self.there[uid].queued = True
        least = max(1, int(best * share))
        size = flexible(device, best, least, later=least // 2)
        self.scheduler.ask(Candidate(uid, True, size, pinned=self.there[uid].pinned))

    @rule(uid=st.sampled_from(UIDS))
    def withdraw(self, uid: str) -> None:
        if self.there[uid].queued:
            self.scheduler.withdraw(uid)

    @rule(uid=st.sampled_from(UIDS))
    def end(self, uid: str) -> None:
        self.there[uid] = Deployment()
        self.scheduler.release(uid)

    @rule(uid=st.sampled_from(UIDS))
    def request(self, uid: str) -> None:
        one = self.there[uid]
        if one.state in ("idle", "in_use") and not one.evicted:
            one.state, one.in_flight = "in_use", one.in_flight + 1

    @rule(uid=st.sampled_from(UIDS))
    def answer(self, uid: str) -> None:
        one = self.there[uid]
        if one.in_flight:
            one.in_flight -= 1
            one.last_used = self.now
            if one.in_flight == 0 and one.state == "in_use":
                one.state = "idle"

    @rule(uid=st.sampled_from(UIDS))
    def become_ready(self, uid: str) -> None:
        one = self.there[uid]
        if one.state == "loading":
            one.state, one.ready_since, one.last_used, one.taken = "idle", self.now, self.now, True

    @rule(uid=st.sampled_from(UIDS))
    def handle(self, uid: str) -> None:
        one = self.there[uid]
        if not one.inbox:
            return
        match one.inbox.pop(0):
            case ("grant", _):
                one.queued, one.state = False, "loading"
            case ("refuse", _):
                one.queued = False
            case ("evict", True) if one.in_flight:
                self.scheduler.declined(uid)
            case ("evict", _):
                one.state, one.evicted = "unloading", True

    @rule(uid=st.sampled_from(UIDS))
    def leave(self, uid: str) -> None:
        one = self.there[uid]
        if one.state == "unloading" and not one.in_flight:
            self.there[uid] = Deployment()
            self.scheduler.release(uid)

    @rule(seconds=st.floats(0.1, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def run(self) -> None:
        self.this_run.clear()
        self.scheduler.run(self.machine(), self.now)
        granted = {uid for effect, uid in self.this_run if effect == "grant"}
        evicted = {uid for effect, uid in self.this_run if effect == "evict"}
        assert not granted & evicted
        assert len(granted) + len(evicted) == len(self.this_run), "nobody is told twice"

    # -- what holds

    @invariant()
    def no_byte_is_promised_twice(self) -> None:
        for device, capacity in CAPACITY.items():
            promised = sum(plan.reserved.get(device, 0) for plan in self.scheduler.ledger.values())
            assert promised <= capacity, f"{promised} of device {device} are promised"

    def teardown(self) -> None:
        """No candidate is stuck: when all that may end has ended, each has its answer."""
        for _ in range(4 * len(UIDS)):
            self.now += TURN + 1
            for uid, one in self.there.items():
                while one.in_flight:
                    self.answer(uid)
                while one.inbox:
                    self.handle(uid)
                self.become_ready(uid)
                self.leave(uid)
            self.run()
        assert self.scheduler.waiting == ()


TestOrders = Orders.TestCase
TestOrders.settings = settings(max_examples=examples(100), stateful_step_count=50, deadline=None)
