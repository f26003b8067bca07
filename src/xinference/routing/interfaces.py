"""What control and gateway call of each other."""

from __future__ import annotations

from typing import Protocol

from xinference.routing.table import Route, RoutingTable


class ReplicaLoad(Protocol):
    """What the data path is doing, seen from the controller: counts that are read, and no call."""

    def at(self, replica_id: str) -> int:
        """Requests at a replica now."""
        ...

    def last_end(self, replica_id: str) -> float | None:
        """When the last request at a replica ended, by `time.monotonic`; None: none has."""
        ...

    def forget(self, replica_id: str) -> None:
        """A replica is gone for good."""
        ...

    async def settled(self) -> None:
        """Wait until every gateway uses the newest table, and the counts are as new.

        From then on no request goes to a replica that is not in that table.
        """
        ...


class NoLoad:
    """A `ReplicaLoad` without a gateway."""

    def at(self, replica_id: str) -> int:
        return 0

    def last_end(self, replica_id: str) -> float | None:
        return None

    def forget(self, replica_id: str) -> None:
        """Nothing is known."""

    async def settled(self) -> None:
        """Nobody uses a table."""


class Router(Protocol):
    """The controller, seen from the data path."""

    @property
    def table(self) -> RoutingTable:
        """The current table; read once a request, without a lock."""
        ...

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        """Wait until `uid` has a target, at most `deadline` seconds.

        A model that is on demand is loaded for it. Between this call's return and the caller's `InFlight.begin` there
        must be no other turn of the event loop: from then on the count keeps the model from being unloaded.

        Raises:
            Problem: 404 unknown; 503 with its stage when the deadline passes, or it has failed; 429 when too many
                wait for it already.
        """
        ...
