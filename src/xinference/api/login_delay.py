"""Slows down an address that sends wrong keys and codes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

#: Number of failures within `WINDOW_SECONDS` from which on each login of the address waits.
FREE_FAILURES = 5
WINDOW_SECONDS = 60.0
WAIT_SECONDS = 2.0
#: Maximum number of addresses that are remembered; one more forgets the oldest.
MAX_ADDRESSES = 1000


class LoginDelay:
    """The failed logins of the last minute, by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, deque[float]] = {}

    def seconds(self, address: str) -> float:
        """How long a login of this address waits before it is answered."""
        failures = self._failures.get(address, ())
        recent = sum(at > self._clock() - WINDOW_SECONDS for at in failures)
        return WAIT_SECONDS if recent >= FREE_FAILURES else 0.0

    def note_failure(self, address: str) -> None:
        """Record a failed login."""
        failures = self._failures.pop(address, None) or deque(maxlen=FREE_FAILURES)
        failures.append(self._clock())
        self._failures[address] = failures
        if len(self._failures) > MAX_ADDRESSES:
            del self._failures[next(iter(self._failures))]
