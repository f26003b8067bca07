"""Records are added up by minute, and nothing is lost or counted twice."""

from __future__ import annotations

import pytest

from tests.records.samples import record
from xinference.records.amounts import Histogram, quantile
from xinference.records.totals import MINUTES_KEPT, Totals


class Clock:
    """The time of day, set by a test."""

    def __init__(self) -> None:
        self.now = 600.0

    def __call__(self) -> float:
        return self.now


def requests(totals: Totals) -> dict[int, int]:
    return {each.minute: sum(amounts.requests for amounts in each.amounts.values()) for each in totals.waiting()}


def test_a_minute_is_taken_once_and_only_after_its_end() -> None:
    clock = Clock()
    totals = Totals(clock)
    totals.add(record(ended=610))
    assert totals.take() == []
    clock.now = 660.0
    (taken,) = totals.take()
    assert taken.minute == 10 and totals.take(current=True) == []


def test_a_scrape_in_a_minute_changes_nothing_of_it() -> None:
    clock = Clock()
    totals = Totals(clock)
    for second in range(60):
        totals.add(record(ended=600 + second))
        totals.since_start()
    assert requests(totals) == {10: 60}
    assert sum(amounts.requests for amounts in totals.since_start().values()) == 60


def test_the_end_of_the_server_takes_the_current_minute_too() -> None:
    totals = Totals(Clock())
    totals.add(record(ended=601))
    (taken,) = totals.take(current=True)
    totals.add(record(ended=602))
    (rest,) = totals.take(current=True)
    assert taken.minute == rest.minute == 10


def test_totals_that_could_not_be_stored_are_kept_up_to_a_bound() -> None:
    clock = Clock()
    totals = Totals(clock)
    for minute in range(2 * MINUTES_KEPT):
        clock.now = 60.0 * (minute + 1)
        totals.add(record(ended=60 * minute + 1))
        totals.give_back(totals.take())
    assert sorted(requests(totals)) == list(range(MINUTES_KEPT, 2 * MINUTES_KEPT))


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    totals = Totals(Clock())
    for ended in (700, 610, 705):
        totals.add(record(ended=ended))
    assert sum(requests(totals).values()) == 3


def test_keys_models_and_statuses_are_counted_apart_and_gone_models_are_forgotten() -> None:
    totals = Totals(Clock())
    for change in ({}, {"key_id": "k2"}, {"model": "other"}, {"status": 404}, {"stream": True}):
        totals.add(record(ended=610, **change))
    assert len(totals.waiting()[0].amounts) == 5
    assert len(totals.since_start()) == 4, "keys are not separated"
    totals.forget({"other"})
    assert {series.model for series in totals.since_start()} == {"m"}


def test_tokens_and_times_are_added() -> None:
    totals = Totals(Clock())
    streamed = {"stream": True, "first_token": 0.2, "total": 1.2, "output_tokens": 11}
    totals.add(record(ended=610, **streamed))
    totals.add(record(ended=610, **streamed | {"exact": False, "prompt_tokens": None}))
    totals.add(record(ended=610, **streamed | {"client_left": True, "wait_permit": 0.5}))
    (amounts,) = totals.waiting()[0].amounts.values()
    assert (amounts.requests, amounts.prompt, amounts.output, amounts.estimated) == (3, 10, 33, 1)
    assert amounts.first_token is not None and sum(amounts.first_token.counts) == 3
    assert amounts.per_token is not None and sum(amounts.per_token.counts) == 2
    assert amounts.per_token.total == pytest.approx(0.2)
    assert amounts.waits is not None and list(amounts.waits) == ["permit"]


def test_a_quantile_lies_in_the_bucket_that_has_it() -> None:
    histogram = Histogram((1.0, 2.0, 4.0))
    assert histogram.quantile(0.5) is None
    for value in (0.5, 1.5, 1.6, 3.0, 99.0):
        histogram.add(value)
    median = quantile(histogram.bounds, histogram.counts, 0.5)
    assert median is not None and 1.0 < median <= 2.0
    assert histogram.quantile(1.0) == 4.0
