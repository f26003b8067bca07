"""Which replica gets a request: the one that knows the prompt's beginning, unless it has more to do than the others.

Bounds on load as in consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018).
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from dataclasses import dataclass

from xinference.gateway.prefix_affinity import Prefixes, Seen, prefix_hashes
from xinference.routing.table import Target

#: A replica gets a request for the sake of its prefix while it has at most so many times the mean, and one.
BOUND = 1.25
#: The same for the requests of late, so that short ones, which are never in flight together, are shared out too.
LATE_BOUND = 1.1
#: Requests beyond that bound: a few for prompts that only begin alike, more for a conversation, which would be
#: computed anew elsewhere.
LATE_ROOM_COMMON, LATE_ROOM_OWN = 1, 8
#: When so many requests are counted as late, each count is halved.
LATE_TOTAL = 1024
#: Failures to connect, one after the other, after which a replica is put aside.
FAILURES = 2
#: How long it is put aside if no new routing table comes.
ASIDE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Aside:
    """A replica that is not chosen as long as its route's targets are these."""

    targets: Sequence[Target]
    until: float


class InFlight:
    """Counts the requests at each target and chooses among them; used from one event loop, so it needs no lock."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._ended: dict[str, float] = {}
        self._late: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._aside: dict[str, _Aside] = {}
        self._prefixes = Prefixes()
        self._turn = 0

    # -- counting -------------------------------------------------------------------------------------------

    def count(self, target: Target) -> int:
        """Requests at `target` now."""
        return self._counts.get(target.replica_id, 0)

    def at(self, replica_id: str) -> int:
        """Requests at a replica now."""
        return self._counts.get(replica_id, 0)

    def last_end(self, replica_id: str) -> float | None:
        """When the last request at a replica ended, by `time.monotonic`; None: none has."""
        return self._ended.get(replica_id)

    def counts(self) -> dict[str, int]:
        """Requests at each replica that has any now."""
        return dict(self._counts)

    def ends(self) -> dict[str, float]:
        """`last_end` of each replica that has one."""
        return dict(self._ended)

    @property
    def total(self) -> int:
        """Requests at all targets now."""
        return sum(self._counts.values())

    def begin(self, target: Target) -> None:
        """A request goes to `target`."""
        replica = target.replica_id
        self._counts[replica] = self._counts.get(replica, 0) + 1

    def end(self, target: Target) -> None:
        """A request at `target` has ended."""
        replica = target.replica_id
        self._ended[replica] = time.monotonic()
        left = self._counts[replica] - 1
        if left:
            self._counts[replica] = left
        else:
            del self._counts[replica]

    def forget(self, replica_id: str) -> None:
        """A replica is gone for good."""
        for known in (self._ended, self._late, self._failures, self._aside):
            known.pop(replica_id, None)

    async def settled(self) -> None:
        """See `Use.settled`: one gateway reads the table at each request, so it has the newest."""

    # -- health ---------------------------------------------------------------------------------------------

    def failed(self, targets: Sequence[Target], target: Target) -> None:
        """`target`, one of a route's `targets`, could not be reached: after some failures it is put aside.

        It is back with the next routing table, or after `ASIDE_SECONDS` if nothing changes in that time.
        """
        replica = target.replica_id
        self._failures[replica] = failures = self._failures.get(replica, 0) + 1
        if failures >= FAILURES:
            self._aside[replica] = _Aside(targets, time.monotonic() + ASIDE_SECONDS)

    def reached(self, target: Target) -> None:
        """`target` has answered."""
        if self._failures:
            self._trust(target.replica_id)

    # -- choosing -------------------------------------------------------------------------------------------

    def choose(
        self, targets: Sequence[Target], tried: Container[Target] = (), body: bytes = b"", prompt_field: str = ""
    ) -> Target | None:
        """The best target not in `tried`; None if there is none. `body` is the request's, as it came.

        Among those that computed the longest known beginning of the prompt, if any is within the bounds; else among
        all: the one with the least in flight, then with the least of late, then in turn.
        """
        free = [target for target in targets if target not in tried]
        if self._aside:
            free = [target for target in free if not self._is_aside(targets, target)] or free
        if len(free) < 2:
            return free[0] if free else None
        self._welcome(free)
        hashes = prefix_hashes(body, prompt_field) if body else []
        seen = self._prefixes.longest(hashes)
        known = self._within_bounds(free, seen) if seen is not None else []
        self._turn += 1
        chosen = self._least(known or free)
        self._note(chosen.replica_id)
        if hashes:
            self._prefixes.remember(hashes, chosen.replica_id)
        return chosen

    def _welcome(self, free: list[Target]) -> None:
        """A new replica begins where the least loaded is: it is not to get every request until it has caught up."""
        late = self._late
        new = [target.replica_id for target in free if target.replica_id not in late]
        if new:
            least = min((late[target.replica_id] for target in free if target.replica_id in late), default=0)
            late.update(dict.fromkeys(new, least))

    def _within_bounds(self, free: list[Target], seen: Seen) -> list[Target]:
        counts, late = self._counts, self._late
        flying = sum(counts.get(target.replica_id, 0) for target in free) * BOUND / len(free) + 1
        room = LATE_ROOM_COMMON if seen.common else LATE_ROOM_OWN
        served = sum(late[target.replica_id] for target in free) * LATE_BOUND / len(free) + room
        return [
            target
            for target in free
            if (replica := target.replica_id) in seen.replicas
            and counts.get(replica, 0) <= flying
            and late[replica] <= served
        ]

    def _least(self, among: list[Target]) -> Target:
        counts, late = self._counts, self._late
        loads = [(counts.get(target.replica_id, 0), late[target.replica_id]) for target in among]
        least = min(loads)
        tied = [target for target, load in zip(among, loads, strict=True) if load == least]
        return tied[self._turn % len(tied)]

    def _note(self, replica: str) -> None:
        self._late[replica] += 1
        if self._turn % LATE_TOTAL == 0:
            self._late = {name: half for name, count in self._late.items() if (half := count // 2)}

    def _is_aside(self, targets: Sequence[Target], target: Target) -> bool:
        aside = self._aside.get(target.replica_id)
        if aside is None:
            return False
        if aside.targets is targets and time.monotonic() < aside.until:
            return True
        self._trust(target.replica_id)
        return False

    def _trust(self, replica_id: str) -> None:
        self._failures.pop(replica_id, None)
        self._aside.pop(replica_id, None)
