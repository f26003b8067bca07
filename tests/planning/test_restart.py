"""A dead engine is started again at once, then ever later, then not any more."""

from __future__ import annotations

from xinference.config import Settings
from xinference.planning.restart import MAX_BACKOFF_SECONDS, restart_delay

SETTINGS = Settings(restart_backoff_seconds=2.0, restart_limit=3)


def test_the_first_restart_is_at_once_and_the_wait_doubles() -> None:
    assert [restart_delay(deaths, SETTINGS) for deaths in (1, 2, 3)] == [0.0, 2.0, 4.0]


def test_after_the_limit_it_is_given_up() -> None:
    assert restart_delay(4, SETTINGS) is None


def test_the_wait_has_a_bound() -> None:
    assert restart_delay(40, Settings(restart_limit=99)) == MAX_BACKOFF_SECONDS
