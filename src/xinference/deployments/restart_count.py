"""Counts the quick exits and the failed starts of one replica, which decide when it is started again."""

from __future__ import annotations

from dataclasses import dataclass

from xinference.config import Settings
from xinference.planning.restart import request_crash_delay, restart_delay
from xinference.process.command import Exit

#: Delays between the starts of a replica whose row cannot be written: the first one, which doubles, and the longest.
STORE_RETRY_SECONDS, MAX_STORE_RETRY_SECONDS = 0.5, 15.0
#: Number of further attempts of a first start: about 30 s with the default `restart_backoff_seconds`.
STORE_RETRIES = 5


@dataclass
class RestartCount:
    """The counts of one replica."""

    quick_deaths: int = 0
    request_crashes: int = 0
    """Consecutive exits with requests in flight."""
    failed_starts: int = 0
    """Consecutive starts that failed because the disk or the store could not be written."""

    def delay_after_exit(self, exit: Exit | None, settings: Settings, *, had_requests: bool) -> float | None:
        """Seconds to wait before the next start; None: the replica is not started again. `exit` None: no start.

        A request may have caused an exit. Such exits do not count towards the limit: otherwise the requests of one
        client could take the model from all others.
        """
        was_quick = exit is None or exit.ran_seconds < settings.quick_death_seconds
        if had_requests:
            self.request_crashes = self.request_crashes + 1 if was_quick else 1
            return request_crash_delay(self.request_crashes, settings)
        self.request_crashes = 0
        self.quick_deaths = self.quick_deaths + 1 if was_quick else 1
        return restart_delay(self.quick_deaths, settings)

    def delay_after_failed_start(self, settings: Settings, *, is_limited: bool) -> float | None:
        """Seconds to wait after a start that failed because nothing could be written; None: it was tried often enough.

        `is_limited`: the number of attempts has a limit.
        """
        self.failed_starts += 1
        if self.failed_starts > STORE_RETRIES and is_limited:
            return None
        first = max(STORE_RETRY_SECONDS, settings.restart_backoff_seconds)
        return min(MAX_STORE_RETRY_SECONDS, first * 2.0 ** min(self.failed_starts - 1, 10))
