"""When a dead engine is started again. Pure."""

from __future__ import annotations

from xinference.config import Settings

LONGEST_BACKOFF_SECONDS = 60.0


def restart_delay(quick_deaths: int, settings: Settings) -> float | None:
    """Seconds to wait before the next start after this many quick deaths in a row; None: give up.

    The first restart is at once: most deaths are single ones, and somebody is waiting for the answer.
    """
    if quick_deaths > settings.restart_limit:
        return None
    if quick_deaths <= 1:
        return 0.0
    return min(LONGEST_BACKOFF_SECONDS, settings.restart_backoff_seconds * 2.0 ** (quick_deaths - 2))
