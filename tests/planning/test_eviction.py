"""Who leaves for whom. Numbers only; the clock is a number too."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinference.errors import Problem
from xinference.planning.eviction import HOST, Resident, State, choose_after_turns, choose_idle, find_expired, fits

MIB = 1024 * 1024


def resident(uid: str, mib: int = 100, state: State = "idle", used: float = 0.0, **more: Any) -> Resident:
    return Resident(uid, state, {HOST: mib * MIB}, last_used=used, **more)


def leave(needed: int, free: int, *residents: Resident) -> tuple[str, ...]:
    return choose_idle("x", {HOST: needed * MIB}, {HOST: free * MIB}, residents)


def test_nobody_leaves_where_there_is_room() -> None:
    assert leave(100, 100, resident("a")) == ()


def test_the_least_recently_used_leaves() -> None:
    assert leave(100, 0, resident("a", used=2), resident("b", used=1), resident("c", used=3)) == ("b",)


def test_priority_comes_before_use() -> None:
    assert leave(100, 0, resident("a", used=1, priority=1), resident("b", used=9)) == ("b",)
    assert leave(200, 0, resident("a", used=1, priority=1), resident("b", used=9)) == ("b", "a")


def test_nobody_leaves_whose_room_is_not_needed() -> None:
    small, large = resident("small", 50, used=1), resident("large", 500, used=2)
    assert leave(300, 0, small, large) == ("large",)
    assert leave(40, 0, small, large) == ("small",)


@pytest.mark.parametrize("why", [{"pinned": True}, {"state": "in_use"}, {"state": "loading"}])
def test_who_is_pinned_in_use_or_loading_stays_and_is_named(why: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        leave(1500, 300, resident("a", 900, **why), resident("b", 100))
    problem = caught.value
    assert (problem.code, problem.status) == ("no_room", 503)
    said = why["state"].replace("_", " ") if "state" in why else "pinned"
    assert "x needs 1.5 GiB of the host's memory, and 300 MiB are free" in problem.cause
    hint = problem.hint or ""
    assert f"a uses 900 MiB ({said})" in hint and "b uses 100 MiB (idle)" in hint
    assert "uses" not in problem.cause


def test_what_is_leaving_counts_as_free() -> None:
    assert leave(150, 50, resident("a", 100, state="unloading"), resident("b")) == ()


def test_each_device_is_looked_at() -> None:
    on_first = Resident("first", "idle", {0: 10})
    on_second = Resident("second", "idle", {1: 10}, last_used=1)
    assert choose_idle("x", {1: 10}, {0: 0, 1: 0}, [on_first, on_second]) == ("second",)
    with pytest.raises(Problem, match="GPU 1"):
        choose_idle("x", {1: 11}, {0: 0, 1: 0}, [on_first, on_second])


def test_one_in_use_has_its_turn_before_it_is_closed() -> None:
    busy = resident("busy", state="in_use", ready_since=10.0)
    arguments: dict[str, Any] = {"need": {HOST: 100 * MIB}, "free": {HOST: 0}, "residents": [busy], "turn_seconds": 5}
    assert choose_after_turns(now=14.9, **arguments) == ()
    assert choose_after_turns(now=15.0, **arguments) == ("busy",)


def test_idle_ones_leave_before_the_turn_of_one_in_use_is_ended() -> None:
    busy, idle = resident("busy", state="in_use", priority=-1), resident("idle", used=99)
    other = resident("other", state="in_use", used=1)
    need, free = {HOST: 200 * MIB}, {HOST: 0}
    assert choose_after_turns(need, free, [busy, idle, other], now=100, turn_seconds=5) == ("idle", "busy")


@pytest.mark.parametrize("state", ["loading", "unloading"])
def test_a_pinned_or_loading_one_never_has_its_turn_ended(state: State) -> None:
    there = [resident("a", state=state), resident("b", state="in_use", pinned=True)]
    assert choose_after_turns({HOST: 200 * MIB}, {HOST: 0}, there, now=100, turn_seconds=0) == ()


def test_one_that_is_idle_for_its_time_to_live_has_expired() -> None:
    there = [
        resident("short", used=0, ttl=10),
        resident("long", used=0, ttl=100),
        resident("for ever", used=0, ttl=0),
        resident("busy", used=0, ttl=10, state="in_use"),
    ]
    assert find_expired(there, 9.9) == ()
    assert find_expired(there, 10.0) == ("short",)


RESIDENTS = st.lists(
    st.builds(
        Resident,
        uid=st.text(min_size=1, max_size=4),
        state=st.sampled_from(["loading", "in_use", "idle", "unloading"]),
        reserved=st.dictionaries(st.sampled_from([HOST, 0, 1]), st.integers(1, 50), min_size=1),
        priority=st.integers(-1, 1),
        pinned=st.booleans(),
        last_used=st.floats(0, 9),
    ),
    unique_by=lambda r: r.uid,
    max_size=7,
)
BYTES = st.dictionaries(st.sampled_from([HOST, 0, 1]), st.integers(0, 99), min_size=1)


@given(RESIDENTS, BYTES, BYTES)
def test_who_leaves_suffices_is_idle_and_not_one_too_many(
    residents: list[Resident], need: dict[int, int], free: dict[int, int]
) -> None:
    def after(gone: set[str]) -> dict[int, int]:
        left = dict(free)
        for r in residents:
            if r.uid in gone or r.state == "unloading":
                for device, count in r.reserved.items():
                    left[device] = left.get(device, 0) + count
        return left

    may = {r.uid for r in residents if r.state == "idle" and not r.pinned}
    try:
        chosen = set(choose_idle("x", need, free, residents))
    except Problem:
        assert not fits(need, after(may))
        return
    assert chosen <= may
    assert fits(need, after(chosen))
    assert not any(fits(need, after(chosen - {uid})) for uid in chosen)
