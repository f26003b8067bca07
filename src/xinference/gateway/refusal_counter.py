"""Counts refused requests, for one line of the log in each interval: a stranger must not be able to fill the disk."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

log = logging.getLogger(__name__)
#: Interval of the lines.
REPORT_SECONDS = 60.0
#: The statuses of refusals that are counted: no valid key, no permission, too many requests.
COUNTED = frozenset({401, 403, 429})


class RefusalCounter:
    """The refused requests since the last report, by their error codes."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, code: str, status: int) -> None:
        """Count a refusal, if it is of one of the statuses `COUNTED`."""
        if status in COUNTED:
            self._counts[str(code)] += 1

    def report(self) -> None:
        """Log the counts, if there are any, and reset them."""
        if self._counts:
            counts = ", ".join(f"{count} {code}" for code, count in self._counts.most_common())
            log.warning("refused requests in the last %g s: %s", REPORT_SECONDS, counts)
            self._counts.clear()

    async def report_periodically(self) -> None:
        """Report in intervals until cancelled."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self.report()
