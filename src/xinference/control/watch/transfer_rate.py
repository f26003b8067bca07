"""The rate of a transfer, from the bytes that were seen in the last seconds. Pure."""

from __future__ import annotations

from collections import deque

#: The time over which the rate is measured, in seconds.
WINDOW_SECONDS = 5.0


class TransferRate:
    """Measures one transfer."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, done: int, now: float) -> float | None:
        """Note the bytes that are done; returns bytes per second, or None before there is anything to compare."""
        seen = self._seen
        if seen and done < seen[-1][1]:  # the next file, or another try
            seen.clear()
        seen.append((now, done))
        while len(seen) > 2 and seen[1][0] <= now - WINDOW_SECONDS:
            seen.popleft()
        seconds = now - seen[0][0]
        return (done - seen[0][1]) / seconds if seconds > 0 else None


class TransferRates:
    """Measures several transfers by name."""

    def __init__(self) -> None:
        self._rates: dict[str, TransferRate] = {}

    def figures(self, name: str, file: str, done: int, total: int | None, now: float) -> dict[str, float | None]:
        """The rate of a transfer, and the seconds until its end at this rate."""
        rate = self._rates.setdefault(f"{name} {file}", TransferRate()).add(done, now)
        left = (total - done) / rate if rate and total is not None and total >= done else None
        return {"bytes_per_second": rate, "seconds_left": left}

    def keep(self, names: set[str]) -> None:
        """Forget all other transfers."""
        for key in [key for key in self._rates if key.split(" ", 1)[0] not in names]:
            del self._rates[key]
