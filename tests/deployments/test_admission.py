"""The task that runs the scheduler: what wakes it, what it reads, and whom it tells. No process, no sleep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.doubles import HOST, SIZING, FakeLoad, launch_of, sized_plan, turns
from tests.support.cases import in_one_test
from xinference.config import Settings
from xinference.deployments.admission import Admission, resident_of
from xinference.deployments.snapshot import DeploymentSnapshot, OnDemandTerms, ReplicaView, Residency
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.plan import SizedPlan
from xinference.planning.admission import Candidate
from xinference.planning.eviction import HOST as HOST_MEMORY
from xinference.planning.eviction import Resident
from xinference.planning.occupancy import Occupancy, free_bytes
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState
from xinference.store.database import Measurement, Store
from xinference.units import MIB

BYTES = SIZING.total_bytes


def sized(uid: str) -> SizedPlan:
    return sized_plan(uid, on_demand=True)


class Holder:
    """A `MemoryHolder` that notes what it is told."""

    def __init__(self, uid: str, residency: Residency = Residency.UNLOADED, *, ready: bool = True, ttl: float = 0.0):
        process = ReplicaSnapshot(f"r-{uid}", ReplicaState.READY, 1, "http://x", "key", {}, Path("log"))
        self.uid = uid
        self.waiting = 0
        self.snapshot = DeploymentSnapshot(
            uid,
            sized(uid),
            0.0,
            residency=residency,
            terms=OnDemandTerms(ttl, pinned=False, priority=0),
            replicas=(ReplicaView(0, process, measured=ready),),
        )
        self.told: list[Any] = []

    def show(self, **changes: Any) -> None:
        self.snapshot = replace(self.snapshot, **changes)

    def grant(self, plan: SizedPlan) -> None:
        self.told.append("granted")
        self.show(residency=Residency.LOADING)

    def refuse(self, problem: Problem) -> None:
        self.told.append(problem.code)

    def evict(self, reason: str, *, only_idle: bool) -> None:
        self.told.append(("evict", only_idle))


def candidate(uid: str) -> Candidate[SizedPlan]:
    def size(host: Host, occupancy: Occupancy) -> SizedPlan:
        if free_bytes(host, occupancy)[HOST_MEMORY] < BYTES:
            raise Problem(Code.DOES_NOT_FIT, "It does not fit.")
        return sized(uid)

    return Candidate(uid, True, size)


class Running:
    """The admission of some holders, with memory for `room` models."""

    def __init__(self, store: Store, room: float) -> None:
        self.load = FakeLoad()
        self.holders: list[Holder] = []
        self.reads = 0
        self.host: Host | Exception = HOST
        settings = Settings(model_memory=int(BYTES * room), on_demand_turn_seconds=1e9)
        self.admission = Admission(settings, store, self.load, lambda: self.holders, self._read_host)

    def add(self, holder: Holder) -> Holder:
        self.holders.append(holder)
        if holder.snapshot.residency is not None and holder.snapshot.residency.holds_memory:
            self.admission.hold(holder.uid, sized(holder.uid))
        return holder

    async def _read_host(self) -> Host:
        self.reads += 1
        if isinstance(self.host, Exception):
            raise self.host
        return self.host


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "x.db")


@pytest.fixture
async def running(store: Store, request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    made = Running(store, getattr(request, "param", 1.5))
    task = asyncio.create_task(made.admission.run())
    yield made
    made.load.settle_all()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_who_asks_is_granted_memory(running: Running) -> None:
    holder = running.add(Holder("m"))
    running.admission.ask(candidate("m"))
    await turns()
    assert holder.told == ["granted"] and running.reads == 1


async def test_nothing_is_read_where_nobody_waits_and_nobody_may_leave(running: Running) -> None:
    running.admission.changed()
    await turns()
    assert running.reads == 0


async def test_the_counts_are_waited_for_before_anything_is_decided(running: Running) -> None:
    idle = running.add(Holder("idle", Residency.LOADED))
    running.add(Holder("m"))
    running.load.settles = 0
    running.admission.ask(candidate("m"))
    await turns()
    assert idle.told == []
    running.load.counts["r-idle"] = 1  # it was in use all the time, as another gateway knew
    running.load.settle_all()
    await turns()
    assert idle.told == []


async def test_an_idle_one_leaves_and_its_memory_is_granted_when_it_is_released(running: Running) -> None:
    idle, new = running.add(Holder("idle", Residency.LOADED)), running.add(Holder("m"))
    running.admission.ask(candidate("m"))
    await turns()
    assert (idle.told, new.told) == ([("evict", True)], [])
    idle.show(residency=Residency.UNLOADED)
    running.admission.release("idle")
    await turns()
    assert new.told == ["granted"]


async def test_one_that_declines_is_not_asked_again_while_it_is_in_use(running: Running) -> None:
    idle, new = running.add(Holder("idle", Residency.LOADED)), running.add(Holder("m"))
    running.admission.ask(candidate("m"))
    await turns()
    running.load.counts["r-idle"] = 1
    running.admission.declined("idle")
    await turns()
    assert idle.told == [("evict", True)] and new.told == []


async def test_whoever_is_not_there_any_more_is_told_nothing(running: Running) -> None:
    running.admission.ask(candidate("gone"))
    await turns()
    assert running.reads == 1


async def test_a_withdrawal_is_answered(running: Running) -> None:
    running.add(Holder("loads", Residency.LOADING, ready=False))
    new = running.add(Holder("m"))
    running.admission.ask(candidate("m"))
    await turns()
    running.admission.withdraw("m")
    await turns()
    assert new.told == ["nobody_waits"]


async def test_a_defect_in_one_candidate_does_not_hold_up_the_next(running: Running) -> None:
    broken, sound = running.add(Holder("broken")), running.add(Holder("m"))

    def size(host: Host, occupancy: Occupancy) -> SizedPlan:
        raise KeyError("x")

    running.admission.ask(Candidate("broken", True, size))
    running.admission.ask(candidate("m"))
    await turns()
    assert broken.told == ["internal_error"] and sound.told == []
    running.admission.changed()
    await turns()
    assert sound.told == ["granted"]


async def test_a_time_to_live_that_is_over_is_seen_at_once(running: Running) -> None:
    idle = running.add(Holder("idle", Residency.LOADED, ttl=1e-9))
    running.admission.changed()
    await turns()
    assert idle.told == [("evict", True)]


def test_a_correction_is_that_of_the_plans_own_version(store: Store) -> None:
    running, plan = Running(store, 1.5), sized("m")
    store.add_measurement(Measurement(plan.version.version_id, plan.engine, 512, 1, 5 * MIB, 3 * MIB, None))
    assert running.admission.occupancy_for(plan).correction_bytes == 2 * MIB
    assert running.admission.occupancy_of_others(launch_of("m", engine="vLLM")).correction_bytes == 0


def test_memory_of_others_that_would_leave_is_returned_to_a_model_on_demand(store: Store) -> None:
    running = Running(store, 1.5)
    running.add(Holder("there", Residency.LOADED))
    assert running.admission.occupancy_for(sized("m")).reclaimable == {HOST_MEMORY: BYTES}
    assert running.admission.occupancy_of_others(sized("m")).host_remaining == int(BYTES * 1.5) - BYTES


# -- what a deployment does, as the scheduler sees it -------------------------------------------------------------


def seen(holder: Holder, load: FakeLoad | None = None) -> Resident | None:
    return resident_of(holder.snapshot, holder.waiting, load or FakeLoad())


@pytest.mark.parametrize("residency", [None, Residency.UNLOADED, Residency.QUEUED])
def test_one_that_holds_no_memory_is_no_resident(residency: Residency | None) -> None:
    holder = Holder("m")
    holder.show(residency=residency)
    assert seen(holder) is None


@in_one_test(
    ("residency", "ready", "waiting", "in_flight", "state"),
    [
        (Residency.LOADING, False, 1, 0, "loading"),
        (Residency.LOADED, False, 0, 0, "loading"),
        (Residency.LOADED, True, 0, 0, "idle"),
        (Residency.LOADED, True, 1, 0, "in_use"),
        (Residency.LOADED, True, 0, 1, "in_use"),
        (Residency.DRAINING, True, 1, 1, "unloading"),
    ],
)
def test_a_resident_is_in_use_while_somebody_waits_or_is_answered(
    residency: Residency, ready: bool, waiting: int, in_flight: int, state: str
) -> None:
    holder, load = Holder("m", residency, ready=ready), FakeLoad()
    holder.waiting, load.counts["r-m"] = waiting, in_flight
    resident = seen(holder, load)
    assert resident is not None and resident.state == state


def test_a_resident_was_last_used_when_its_last_answer_ended() -> None:
    holder, load = Holder("m", Residency.LOADED), FakeLoad()
    holder.show(ready_since=5.0)
    resident = seen(holder, load)
    assert resident is not None and resident.last_used == 5.0
    load.ended["r-m"] = 9.0
    resident = seen(holder, load)
    assert resident is not None and (resident.last_used, resident.ready_since) == (9.0, 5.0)


def test_memory_of_models_that_a_user_could_unload_is_counted_as_free_on_request(store: Store) -> None:
    running = Running(store, 1.5)
    running.add(Holder("there"))
    running.admission.hold("there", sized("there"))
    assert running.admission.reserved() == {"there": {HOST_MEMORY: BYTES}}
    assert running.admission.occupancy_for(sized("m")).reclaimable == {}
    assert running.admission.occupancy_for(sized("m"), ["there"]).reclaimable == {HOST_MEMORY: BYTES}
