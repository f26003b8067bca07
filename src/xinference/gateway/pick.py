"""Which replica gets a request: the one with the fewest in flight, ties in turn."""

from __future__ import annotations

from collections.abc import Container, Sequence

from xinference.control.routing import Target


class InFlight:
    """Counts the requests at each target; used from one event loop, so it needs no lock."""

    def __init__(self) -> None:
        self._counts: dict[Target, int] = {}
        self._turn = 0

    def count(self, target: Target) -> int:
        """Requests at `target` now."""
        return self._counts.get(target, 0)

    @property
    def total(self) -> int:
        """Requests at all targets now."""
        return sum(self._counts.values())

    def choose(
        self, targets: Sequence[Target], tried: Container[Target] = (), body: bytes = b"", prompt_field: str = ""
    ) -> Target | None:
        """The least loaded target not in `tried`; None if there is none. `body` is the request's, as it came."""
        free = [target for target in targets if target not in tried]
        if len(free) < 2:
            return free[0] if free else None
        least = min(map(self.count, free))
        tied = [target for target in free if self.count(target) == least]
        self._turn += 1
        return tied[self._turn % len(tied)]

    def begin(self, target: Target) -> None:
        """A request goes to `target`."""
        self._counts[target] = self.count(target) + 1

    def end(self, target: Target) -> None:
        """A request at `target` has ended; a target without any is forgotten."""
        left = self._counts[target] - 1
        if left:
            self._counts[target] = left
        else:
            del self._counts[target]
