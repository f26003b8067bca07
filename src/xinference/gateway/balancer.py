"""Chooses a replica for each request: the one that computed the prompt's beginning, unless its load is above a bound.

The bounds are those of consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from xinference.gateway.prefix_affinity import Prefixes, PrefixRecord, prefix_hashes
from xinference.routing.table import Target

#: A replica is chosen for its prefix only while it has at most `BOUND` times the mean of requests in flight, plus one.
BOUND = 1.25
#: The same for recent requests: short requests are never in flight at the same time, and are balanced by this bound.
RECENT_BOUND = 1.1
#: Recent requests allowed above that bound: few for prompts that share only a beginning, more for a conversation,
#: because another replica would compute it from its start.
RECENT_EXCESS_COMMON, RECENT_EXCESS_OWN = 1, 8
#: After this number of choices, each count of recent requests is halved.
RECENT_TOTAL = 1024
#: Number of consecutive failed connections after which a replica is excluded.
FAILURES = 2
#: Maximum duration of an exclusion; a new routing table ends it earlier.
EXCLUDED_SECONDS = 10.0

#: Why a replica was chosen: it knows the prompt's beginning; another one knows it and has too many requests; none does.
Affinity = Literal["known", "balanced", "new"]


@dataclass(frozen=True, slots=True)
class _Exclusion:
    """A replica is not chosen until `until`, or until its route has other targets."""

    targets: Sequence[Target]
    until: float


class Balancer:
    """Counts the requests at each target and chooses a target. It is used from one event loop, so it needs no lock."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._ended: dict[str, float] = {}
        self._recent: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._excluded: dict[str, _Exclusion] = {}
        self._prefixes = Prefixes()
        self._turn = 0
        self._affinity: Counter[tuple[str, Affinity]] = Counter()
        self.last_bytes: Callable[[], Mapping[str, float]] = dict
        """When the last byte of each engine arrived, by base URL; the gateway sets it."""
        self.forgotten: Callable[[str], None] = lambda replica_id: None
        """Called for a replica that has exited; the gateway sets it."""

    # -- counting -------------------------------------------------------------------------------------------

    def count(self, target: Target) -> int:
        """The number of requests in flight at `target`."""
        return self._counts.get(target.replica_id, 0)

    def at(self, replica_id: str) -> int:
        """The number of requests in flight at a replica."""
        return self._counts.get(replica_id, 0)

    def last_end(self, replica_id: str) -> float | None:
        """Time at which the last request at a replica ended, by `time.monotonic`; None: no request has ended."""
        return self._ended.get(replica_id)

    def counts(self) -> dict[str, int]:
        """The number of requests in flight at each replica that has any."""
        return dict(self._counts)

    def ends(self) -> dict[str, float]:
        """The `last_end` of each replica at which a request has ended."""
        return dict(self._ended)

    def take_affinity(self) -> list[tuple[str, str, int]]:
        """The choices among several replicas since the last call: replica, reason, number."""
        taken, self._affinity = self._affinity, Counter()
        return [(replica, reason, count) for (replica, reason), count in taken.items()]

    @property
    def total(self) -> int:
        """The number of requests in flight at all targets."""
        return sum(self._counts.values())

    def begin(self, target: Target) -> None:
        """Count a request that is sent to `target`."""
        replica = target.replica_id
        self._counts[replica] = self._counts.get(replica, 0) + 1

    def end(self, target: Target) -> None:
        """Count a request at `target` as ended."""
        replica = target.replica_id
        self._ended[replica] = time.monotonic()
        remaining = self._counts[replica] - 1
        if remaining:
            self._counts[replica] = remaining
        else:
            del self._counts[replica]

    def forget(self, replica_id: str) -> None:
        """Delete the records of a replica that has exited."""
        for known in (self._ended, self._recent, self._failures, self._excluded):
            known.pop(replica_id, None)
        self.forgotten(replica_id)

    async def last_byte(self, base_url: str) -> float:
        """See `ReplicaLoad.last_byte`."""
        return self.last_bytes().get(base_url, 0.0)

    async def settled(self) -> None:
        """Return at once: this gateway reads the table at each request, so it always uses the newest one."""

    # -- health ---------------------------------------------------------------------------------------------

    def failed(self, targets: Sequence[Target], target: Target) -> None:
        """Count a failed connection to `target`, one of a route's `targets`; exclude it after `FAILURES` in a row.

        The exclusion ends with the next routing table, at the latest after `EXCLUDED_SECONDS`.
        """
        replica = target.replica_id
        self._failures[replica] = failures = self._failures.get(replica, 0) + 1
        if failures >= FAILURES:
            self._excluded[replica] = _Exclusion(targets, time.monotonic() + EXCLUDED_SECONDS)

    def reached(self, target: Target) -> None:
        """Reset the failures of `target`, because it has answered."""
        if self._failures:
            self._include(target.replica_id)

    # -- choosing -------------------------------------------------------------------------------------------

    def choose(
        self,
        targets: Sequence[Target],
        tried: Container[Target] = (),
        body: bytes = b"",
        prompt_field: str = "",
        slots: int = 0,
    ) -> Target | None:
        """The best target that is not in `tried`; None if there is none.

        The candidates are the targets that computed the longest known prefix of the prompt and are within the bounds
        of load; if there are none, all targets. The chosen candidate has the fewest requests in flight, then the
        fewest recent requests; equal candidates are chosen in turn.

        Args:
            body: the client's request body; `prompt_field` is the field with the prompt.
            slots: targets with as many requests are chosen only if all have; 0: the slots do not matter.
        """
        free = [target for target in targets if target not in tried]
        if self._excluded:
            free = [target for target in free if not self._is_excluded(targets, target)] or free
        if slots and len(free) > 1:
            free = [target for target in free if self._counts.get(target.replica_id, 0) < slots] or free
        if len(free) < 2:
            return free[0] if free else None
        self._start_counts(free)
        hashes = prefix_hashes(body, prompt_field) if body else []
        seen = self._prefixes.longest(hashes, [target.replica_id for target in free]) if hashes else None
        known = self._within_bounds(free, seen) if seen is not None else []
        self._turn += 1
        chosen = self._least_loaded(known or free)
        self._affinity[chosen.replica_id, "known" if known else "new" if seen is None else "balanced"] += 1
        self._count_recent(chosen.replica_id)
        if hashes:
            self._prefixes.remember(hashes, chosen.replica_id)
        return chosen

    def _start_counts(self, free: list[Target]) -> None:
        """Count a new replica's recent requests from the minimum of the others; from 0 it would get every request."""
        recent = self._recent
        new = [target.replica_id for target in free if target.replica_id not in recent]
        if new:
            minimum = min((recent[target.replica_id] for target in free if target.replica_id in recent), default=0)
            recent.update(dict.fromkeys(new, minimum))

    def _within_bounds(self, free: list[Target], seen: PrefixRecord) -> list[Target]:
        counts, recent = self._counts, self._recent
        max_in_flight = sum(counts.get(target.replica_id, 0) for target in free) * BOUND / len(free) + 1
        excess = RECENT_EXCESS_COMMON if seen.common else RECENT_EXCESS_OWN
        max_recent = sum(recent[target.replica_id] for target in free) * RECENT_BOUND / len(free) + excess
        return [
            target
            for target in free
            if (replica := target.replica_id) in seen.replicas
            and counts.get(replica, 0) <= max_in_flight
            and recent[replica] <= max_recent
        ]

    def _least_loaded(self, candidates: list[Target]) -> Target:
        counts, recent = self._counts, self._recent
        loads = [(counts.get(target.replica_id, 0), recent[target.replica_id]) for target in candidates]
        minimum = min(loads)
        tied = [target for target, load in zip(candidates, loads, strict=True) if load == minimum]
        return tied[self._turn % len(tied)]

    def _count_recent(self, replica: str) -> None:
        self._recent[replica] += 1
        if self._turn % RECENT_TOTAL == 0:
            self._recent = {name: half for name, count in self._recent.items() if (half := count // 2)}

    def _is_excluded(self, targets: Sequence[Target], target: Target) -> bool:
        exclusion = self._excluded.get(target.replica_id)
        if exclusion is None:
            return False
        if exclusion.targets is targets and time.monotonic() < exclusion.until:
            return True
        self._include(target.replica_id)
        return False

    def _include(self, replica_id: str) -> None:
        self._failures.pop(replica_id, None)
        self._excluded.pop(replica_id, None)
