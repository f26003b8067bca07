"""Decides whether a ready engine hangs. Pure: the caller measures, sends the probe and ends the engine.

An engine with requests in flight gets a probe from time to time, which it answers only if its main loop runs. Bytes of
its answers prove nothing: the threads of an HTTP server may send comments to keep a stream open, or count tokens,
while the loop that computes stands still.

How long the answer may take depends on what the engine's processes do meanwhile. An engine that computes a batch
answers after the batch, which may take minutes on a slow processor; but then several of its threads are busy, or it
reads from the disk. An engine that does nothing at all, or is busy with one thread only, gets less time.

Only observed time counts: each observation adds at most two intervals, so that a process or a machine that was
suspended does not find all its engines overdue when it goes on.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: Maximum and minimum seconds between two observations.
INTERVAL_SECONDS, MIN_INTERVAL_SECONDS = 5.0, 0.05
#: The second busiest thread has at least this share of the busiest one's time if several threads compute.
PARALLEL_SHARE = 0.25
#: Threads with less processor time than this share of the observed time do nothing.
IDLE_SHARE = 0.005
#: Reading at least this number of bytes is work.
READ_BYTES = 1024 * 1024
#: The time of the last byte is known to within this number of seconds.
BYTE_SECONDS = 0.25


@dataclass(frozen=True)
class Limits:
    """The time limits of the watch; seconds."""

    busy: float
    """Time with requests in flight after which a probe is sent."""
    answer: float
    """Time for the answer to a probe."""
    computing: float
    """Time for the answer while the engine computes with several threads or reads from the disk."""

    @property
    def interval(self) -> float:
        """Seconds between two observations."""
        return max(MIN_INTERVAL_SECONDS, min(INTERVAL_SECONDS, self.busy / 2, self.answer / 4))


@dataclass(frozen=True)
class Work:
    """What an engine's processes have done since the probe was sent."""

    busiest: float = 0.0
    """Processor seconds of the busiest thread."""
    second: float = 0.0
    """The same of the second busiest."""
    bytes_read: int = 0
    """Bytes read from disks, also by page faults."""


class Step(enum.Enum):
    """What the caller has to do after an observation."""

    NOTHING = enum.auto()
    SEND_PROBE = enum.auto()
    """Send a probe, and measure the work from now on."""
    END = enum.auto()
    """The engine hangs."""


class ProgressWatch:
    """The state of the watch on one engine."""

    def __init__(
        self, limits: Limits, now: float, *, one_thread: bool = False, max_in_flight: int | None = None
    ) -> None:
        """See `ProgressProbe` for the arguments by name."""
        self._limits = limits
        self._one_thread = one_thread
        self._max_in_flight = max_in_flight
        self._observed_at = now
        self._began_at = now
        self._busy = 0.0
        self._unanswered: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a probe is unanswered."""
        return self._unanswered is not None

    def may_queue(self, in_flight: int) -> bool:
        """Whether the probe may wait behind these requests, so that it does not tell whether the engine hangs."""
        return self._max_in_flight is not None and in_flight >= self._max_in_flight

    def observe(self, now: float, in_flight: int, last_byte: float, work: Work) -> Step:
        """Note an observation.

        Args:
            in_flight: requests at the engine.
            last_byte: when its last byte arrived, by `time.monotonic`; needed only if `may_queue`.
            work: since the probe was sent.
        """
        elapsed = min(now - self._observed_at, 2 * self._limits.interval)
        self._observed_at = now
        if self._unanswered is None:
            self._busy += elapsed if in_flight else 0.0
            if self._busy < self._limits.busy:
                return Step.NOTHING
            self._began_at, self._unanswered = now, 0.0
            return Step.SEND_PROBE
        if self.may_queue(in_flight) and last_byte > self._began_at + BYTE_SECONDS:
            self._began_at, self._unanswered = now, 0.0
            return Step.NOTHING
        # It goes on if all clients have left: the next ones would wait in vain.
        self._unanswered += elapsed
        return Step.END if self._unanswered >= self._allowed(self._unanswered, work) else Step.NOTHING

    def note_answer(self) -> None:
        """Note that the engine has answered its probe."""
        self._busy, self._unanswered = 0.0, None

    def _allowed(self, seconds: float, work: Work) -> float:
        """The time for the answer, after `seconds` with this work."""
        is_idle = work.busiest <= IDLE_SHARE * seconds
        computes = not is_idle and (self._one_thread or work.second >= PARALLEL_SHARE * work.busiest)
        return self._limits.computing if computes or work.bytes_read >= READ_BYTES else self._limits.answer
