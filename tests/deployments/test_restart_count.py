"""When a replica is started again: by its own quick exits, by those of its requests, and by failed writes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xinference.config import Settings
from xinference.deployments.restart_count import MAX_STORE_RETRY_SECONDS, STORE_RETRIES, RestartCount
from xinference.process.command import Exit

SETTINGS = replace(Settings(), restart_limit=3, restart_backoff_seconds=1.0, quick_death_seconds=60.0)
QUICK, LATE = (Exit(1, None, (), seconds) for seconds in (1.0, 3600.0))


def exits(*ends: tuple[Exit | None, bool]) -> list[float | None]:
    count = RestartCount()
    return [count.delay_after_exit(exit, SETTINGS, had_requests=had_requests) for exit, had_requests in ends]


def test_quick_exits_have_a_limit_and_growing_delays() -> None:
    delays = exits(*[(QUICK, False)] * 10)
    assert delays[-1] is None
    known = [delay for delay in delays if delay is not None]
    assert known == sorted(known) and len(known) == SETTINGS.restart_limit


def test_a_start_that_failed_is_a_quick_exit() -> None:
    assert exits(*[(None, False)] * 10) == exits(*[(QUICK, False)] * 10)


def test_a_long_life_begins_the_count_again() -> None:
    assert exits(*[(QUICK, False), (QUICK, False), (LATE, False)] * 5).count(None) == 0


def test_exits_with_requests_never_reach_the_limit() -> None:
    delays = exits(*[(QUICK, True)] * 50)
    assert None not in delays and delays[0] != delays[10]


def test_exits_with_requests_do_not_count_for_the_others() -> None:
    count = RestartCount()
    for _ in range(20):
        count.delay_after_exit(QUICK, SETTINGS, had_requests=True)
    assert count.delay_after_exit(QUICK, SETTINGS, had_requests=False) is not None
    assert (count.quick_deaths, count.request_crashes) == (1, 0)


@pytest.mark.parametrize("is_limited", [False, True])
def test_failed_writes_are_retried_with_growing_delays_and_a_first_start_not_for_ever(is_limited: bool) -> None:
    count = RestartCount()
    delays = [count.delay_after_failed_start(SETTINGS, is_limited=is_limited) for _ in range(STORE_RETRIES + 10)]
    assert delays[:3] == [1.0, 2.0, 4.0]
    assert (delays[STORE_RETRIES] is None) is is_limited
    assert is_limited or delays[-1] == MAX_STORE_RETRY_SECONDS
