"""Nodes report in slots, so that a supervisor of many nodes is woken rarely."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from xinference.cluster.rows import new_node_id
from xinference.nodes.membership import STATUS_SECONDS
from xinference.nodes.report_slots import REPORT_SECONDS, SLOT_SECONDS, SLOTS, seconds_to_report

CLOCK = st.floats(0, 4e9)


@given(CLOCK)
def test_a_node_reports_often_enough_to_be_ready_whatever_its_clock_is(clock: float) -> None:
    assert 0 < seconds_to_report("n0123456789ab", clock) <= REPORT_SECONDS + SLOT_SECONDS / 2 < STATUS_SECONDS / 2


@given(CLOCK, CLOCK)
def test_nodes_of_one_slot_report_at_one_moment_whenever_they_have_connected(first: float, second: float) -> None:
    moments = [(clock + seconds_to_report("n0123456789ab", clock)) % REPORT_SECONDS for clock in (first, second)]
    distance = abs(moments[0] - moments[1])
    assert min(distance, REPORT_SECONDS - distance) < 1e-3


def test_a_timer_that_fires_too_early_causes_no_second_report() -> None:
    clock = 1.8e9
    slot = clock + seconds_to_report("n0123456789ab", clock)
    assert seconds_to_report("n0123456789ab", slot - SLOT_SECONDS / 4) > REPORT_SECONDS


def test_a_thousand_nodes_spread_over_all_slots() -> None:
    slots = Counter(round(seconds_to_report(new_node_id(), 0.0) / SLOT_SECONDS) for _ in range(1000))
    assert len(slots) == SLOTS
    assert max(slots.values()) < 3 * 1000 / SLOTS
