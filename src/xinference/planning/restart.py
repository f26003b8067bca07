"""Computes the delay before a crashed engine is restarted. Pure."""

from __future__ import annotations

from xinference.config import Settings

MAX_BACKOFF_SECONDS = 60.0


def restart_delay(quick_deaths: int, settings: Settings) -> float | None:
    """Seconds to wait before the next start, after this number of consecutive quick crashes; None: no further start.

    The first restart is immediate: most engines die only once, and clients wait meanwhile.
    """
    if quick_deaths > settings.restart_limit:
        return None
    if quick_deaths <= 1:
        return 0.0
    return min(MAX_BACKOFF_SECONDS, settings.restart_backoff_seconds * 2.0 ** (quick_deaths - 2))


def request_crash_delay(crashes: int, settings: Settings) -> float:
    """The same after consecutive exits with requests in flight, each soon after its start.

    The delay stays at that of the last restart before the limit: the next request may be harmless.
    """
    return restart_delay(max(1, min(crashes, settings.restart_limit)), settings) or 0.0
