"""The state of a node is a function of what is known of it now."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from xinference.nodes.membership import (
    STATUS_SECONDS,
    Knowledge,
    NodeState,
    node_state,
    seconds_left,
)

LOST = 30.0
UP = Knowledge().with_link(is_up=True, now=0.0)
READY = UP.with_status(0.0).with_replicas()


def _state(known: Knowledge, now: float) -> NodeState:
    return node_state(known, now, LOST)


def test_a_node_is_ready_only_after_its_first_status_and_its_list_of_replicas() -> None:
    assert _state(UP, 0) is NodeState.JOINING
    assert _state(UP.with_status(0), 0) is NodeState.JOINING
    assert _state(UP.with_replicas(), 0) is NodeState.JOINING
    assert _state(READY, 0) is NodeState.READY


def test_a_silent_node_takes_nothing_new_and_stays_in_the_table() -> None:
    state = _state(READY, STATUS_SECONDS + 0.1)
    assert state is NodeState.UNREACHABLE
    assert state.is_routed and not state.takes_replicas


def test_a_node_that_is_silent_for_long_is_lost() -> None:
    assert _state(READY, LOST - 0.1) is NodeState.UNREACHABLE
    assert _state(READY, LOST) is NodeState.LOST
    assert not NodeState.LOST.is_routed


def test_a_link_that_breaks_after_silence_was_down_since_the_last_message() -> None:
    silent = READY.with_link(is_up=False, now=8)
    assert _state(silent, LOST - 0.1) is NodeState.UNREACHABLE and _state(silent, LOST) is NodeState.LOST
    prompt = READY.with_link(is_up=False, now=2)
    assert _state(prompt, LOST + 1.9) is NodeState.UNREACHABLE and _state(prompt, LOST + 2) is NodeState.LOST


def test_a_node_that_comes_back_is_ready_again_after_a_fresh_status() -> None:
    back = READY.with_link(is_up=False, now=1).with_link(is_up=True, now=100)
    assert _state(back, 100) is NodeState.JOINING
    assert _state(back.with_status(101).with_replicas(), 101) is NodeState.READY


def test_a_status_of_before_the_loss_does_not_make_a_node_ready() -> None:
    down = READY.with_link(is_up=False, now=1).with_status(2).with_replicas()
    assert _state(down, 2) is NodeState.UNREACHABLE


def test_a_drained_node_is_routed_but_takes_nothing() -> None:
    drained = Knowledge(True, 0.0, 0.0, True, is_drained=True)
    state = _state(drained, 0)
    assert state is NodeState.DRAINING
    assert state.is_routed and not state.takes_replicas


def test_a_node_whose_worker_ends_is_routed_but_takes_nothing_also_if_it_is_drained() -> None:
    leaving = replace(READY, is_drained=True).with_leaving()
    state = _state(leaving, 0)
    assert state is NodeState.LEAVING
    assert state.is_routed and not state.takes_replicas


def test_a_node_whose_worker_has_ended_is_lost_at_once() -> None:
    ended = READY.with_leaving().with_link(is_up=False, now=1)
    assert _state(ended, 1) is NodeState.LOST and seconds_left(ended, 1, LOST) == 0.0


def test_a_node_whose_worker_hangs_while_it_ends_is_lost_after_its_time() -> None:
    leaving = READY.with_leaving()
    assert _state(leaving, LOST - 0.1) is NodeState.UNREACHABLE and _state(leaving, LOST) is NodeState.LOST


def test_a_node_whose_next_worker_is_linked_takes_replicas_again() -> None:
    back = READY.with_leaving().with_link(is_up=False, now=1).with_link(is_up=True, now=2)
    assert _state(back.with_status(2).with_replicas(), 2) is NodeState.READY


def test_a_refused_node_is_incompatible_whatever_its_link_does() -> None:
    refused = Knowledge(True, 0.0, 0.0, True, refusal="protocol 2, the supervisor has 1")
    assert _state(refused, 0) is NodeState.INCOMPATIBLE
    assert _state(refused, 1000) is NodeState.INCOMPATIBLE


@pytest.mark.parametrize(("now", "left"), [(1, None), (10, 20.0), (40, 0.0)])
def test_the_seconds_to_the_loss_are_known(now: float, left: float | None) -> None:
    assert seconds_left(READY, now, LOST) == left


_STEPS = st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["up", "down", "status", "replicas", "leaving"])))


@given(_STEPS)
def test_no_order_of_events_leaves_a_node_stuck(steps: list[tuple[int, str]]) -> None:
    known, now = Knowledge(), 0.0
    for seconds, kind in steps:
        now += seconds
        known = _after(known, kind, now)
        state = _state(known, now)
        if state is NodeState.READY:
            assert known.link_is_up and known.status_received is not None
            assert now - known.status_received <= STATUS_SECONDS
        if state.is_routed and not known.link_is_up:
            assert now - known.link_changed < LOST
    # Whatever came before, a link that is up with a fresh status makes the node READY, and silence makes it LOST.
    now += 1
    for kind in ("up", "status", "replicas"):
        known = _after(known, kind, now)
    assert _state(known, now) is NodeState.READY
    assert _state(known, now + LOST) is NodeState.LOST


def _after(known: Knowledge, kind: str, now: float) -> Knowledge:
    match kind:
        case "up" | "down":
            return known.with_link(is_up=kind == "up", now=now)
        case "status":
            return known.with_status(now)
        case "leaving":
            return known.with_leaving()
        case _:
            return known.with_replicas()
