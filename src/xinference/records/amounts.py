"""Sums over records: counts, tokens and histograms, as cheap to add to as to merge."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from xinference.records.record import Record

#: Upper bounds of histograms in seconds. Those of tokens are the buckets of OpenTelemetry's semantic conventions; the
#: first token has two more, because it may take a minute on a CPU.
SECONDS_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
)  # fmt: skip
PER_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
#: The waits of a record by what a request waits for.
WAITS = ("load", "recovery", "permit", "quota")


class Histogram:
    """Counts by bucket, and the sum of the values."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram with the same bounds."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def quantile(self, share: float) -> float | None:
        """An estimate of the value below which `share` of the values are; None without values."""
        return quantile(self.bounds, self.counts, share)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The quantile of a histogram, on the assumption that the values of a bucket are spread evenly over it.

    Values above the last bound are assumed to be at that bound.
    """
    total = sum(counts)
    if not total:
        return None
    rank, below = share * total, 0
    for n, count in enumerate(counts[: len(bounds)]):
        if below + count >= rank and count:
            low = bounds[n - 1] if n else 0.0
            return low + (bounds[n] - low) * (rank - below) / count
        below += count
    return bounds[-1]


class Amounts:
    """The sum of some records."""

    __slots__ = ("cached", "estimated", "first_token", "output", "per_token", "prompt", "requests", "seconds", "waits")

    def __init__(self) -> None:
        self.requests = 0
        self.prompt = self.cached = self.output = 0
        """Tokens."""
        self.estimated = 0
        """Answers whose tokens the engine has not reported."""
        self.seconds = Histogram(SECONDS_BUCKETS)
        self.first_token: Histogram | None = None
        self.per_token: Histogram | None = None
        self.waits: dict[str, Histogram] | None = None

    def add(self, record: Record) -> None:
        """Add one record. Called for each request: the values that most records lack cost nothing."""
        self.requests += 1
        total = record.total
        seconds = self.seconds
        seconds.counts[bisect_left(SECONDS_BUCKETS, total)] += 1
        seconds.total += total
        if record.exact:
            self.prompt += record.prompt_tokens or 0
            self.cached += record.cached_tokens or 0
        elif record.output_tokens is not None:
            self.estimated += 1
        output = record.output_tokens
        if output:
            self.output += output
        first = record.first_token
        if first is not None:
            self._add_first_token(record, first, output or 0)
        if record.wait_permit or record.wait_load or record.wait_recovery or record.wait_quota:
            self._add_waits(record)

    def _add_first_token(self, record: Record, first: float, output: int) -> None:
        histogram = self.first_token
        if histogram is None:
            histogram = self.first_token = Histogram(FIRST_TOKEN_BUCKETS)
            self.per_token = Histogram(PER_TOKEN_BUCKETS)
        histogram.counts[bisect_left(FIRST_TOKEN_BUCKETS, first)] += 1
        histogram.total += first
        if output > 1 and not record.code and not record.client_left:
            assert self.per_token is not None
            self.per_token.add((record.total - first) / (output - 1))

    def _add_waits(self, record: Record) -> None:
        if self.waits is None:
            self.waits = {}
        waited = (record.wait_load, record.wait_recovery, record.wait_permit, record.wait_quota)
        for name, seconds in zip(WAITS, waited, strict=True):
            if seconds:
                self.waits.setdefault(name, Histogram(SECONDS_BUCKETS)).add(seconds)

    def merge(self, other: Amounts) -> None:
        """Add the sum of other records."""
        self.requests += other.requests
        self.prompt += other.prompt
        self.cached += other.cached
        self.output += other.output
        self.estimated += other.estimated
        self.seconds.merge(other.seconds)
        if other.first_token is not None and other.per_token is not None:
            if self.first_token is None or self.per_token is None:
                self.first_token, self.per_token = Histogram(FIRST_TOKEN_BUCKETS), Histogram(PER_TOKEN_BUCKETS)
            self.first_token.merge(other.first_token)
            self.per_token.merge(other.per_token)
        for name, histogram in (other.waits or {}).items():
            if self.waits is None:
                self.waits = {}
            self.waits.setdefault(name, Histogram(SECONDS_BUCKETS)).merge(histogram)
