"""Rates are the differences of counts, in rings of three steps."""

from __future__ import annotations

import pytest

from tests.records.samples import record
from xinference.records.rates import Counts, Rates, Snapshot, columns, counts_by_model
from xinference.records.totals import Totals


def snapshot(time: float, **models: Counts) -> Snapshot:
    return Snapshot(time, models, {"cpu": 0.5})


def test_a_rate_is_a_difference_over_the_time_between_two_samples() -> None:
    rates = Rates()
    for second in range(0, 62, 2):
        rates.add(snapshot(1000.0 + second, m=Counts(requests=second, output=100 * second, in_flight=3)))
    fine, coarse = rates.points(2.0), rates.points(30.0)
    assert len(fine) == 30 and len(coarse) == 2 and rates.points(600.0) == []
    for point in (*fine, *coarse):
        for model in ("m", ""):
            assert point.models[model]["requests_per_second"] == pytest.approx(1)
            assert point.models[model]["output_tokens_per_second"] == pytest.approx(100)
            assert point.models[model]["in_flight"] == 3
    assert [point.time for point in rates.points(30.0, since=1040.0)] == [1060.0]


def test_samples_that_are_rare_fill_the_finest_ring_with_fewer_points() -> None:
    rates = Rates()
    for n in range(4):
        rates.add(snapshot(1000.0 + 30 * n, m=Counts(requests=60 * n)))
    assert [point.models["m"]["requests_per_second"] for point in rates.points(2.0)] == [2.0] * 3


def test_a_count_that_falls_and_a_clock_that_is_set_back_give_no_negative_rate() -> None:
    rates = Rates()
    for time, requests in ((1000.0, 50), (1002.0, 10), (500.0, 20), (502.0, 22)):
        rates.add(snapshot(time, m=Counts(requests=requests)))
    assert [point.models[""]["requests_per_second"] for point in rates.points(2.0)] == [0.0, 1.0]


def test_the_rings_have_an_end_and_the_step_fits_the_time() -> None:
    rates = Rates({2.0: 5, 30.0: 10})
    for n in range(1000):
        rates.add(snapshot(1000.0 + 2 * n))
    assert len(rates.points(2.0)) == 5 and len(rates.points(30.0)) == 10
    now = 3000.0
    given: list[tuple[float | None, float | None]] = [(None, None), (2.0, None), (3.0, None), (None, now - 9)]
    assert [rates.step_for(step, since, now) for step, since in given] == [2.0, 2.0, 30.0, 2.0]
    assert rates.step_for(None, now - 100, now) == 30.0 and rates.step_for(600.0, 0.0, now) == 30.0


def test_models_without_requests_take_no_room_and_are_shown_as_idle() -> None:
    rates = Rates()
    for time in (1000.0, 1002.0):
        rates.add(snapshot(time, idle=Counts(requests=5), busy=Counts(requests=int(time))))
    (point,) = rates.points(2.0)
    assert set(point.models) == {"", "busy"}
    shown = columns([point], ["busy", "idle"])
    assert shown["models"]["idle"]["requests_per_second"] == [0.0]
    assert shown["models"]["busy"]["requests_per_second"] == [1.0] and shown["all"]["first_token_p50"] == [None]
    assert shown["t"] == [1002.0] and shown["host"] == {"cpu": [0.5]}


def test_counts_are_those_of_the_totals_with_the_streams_that_run() -> None:
    totals = Totals(lambda: 600.0)
    totals.add(record(ended=600, stream=True, first_token=0.1))
    totals.add(record(ended=600, model="n"))
    counts = counts_by_model(totals.since_start(), {"m": (2, 1, 30), "new": (1, 0, 0)})
    assert (counts["m"].requests, counts["m"].output, counts["m"].in_flight, counts["m"].waiting) == (1, 37, 2, 1)
    assert sum(counts["m"].first_tokens) == 1 and counts["n"].output == 7 and counts["new"].in_flight == 1
