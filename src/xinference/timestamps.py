"""Points in time as text."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_time(seconds: float) -> str:
    """A point in time, in seconds since the epoch, by RFC 3339.

    >>> utc_time(1767225600.9)
    '2026-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
