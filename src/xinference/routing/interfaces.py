"""The interfaces between control and gateway."""

from __future__ import annotations

from typing import Protocol

from xinference.routing.table import Route, RoutingTable


class ReplicaLoad(Protocol):
    """In-flight counters of the gateway, read-only for the controller."""

    def at(self, replica_id: str) -> int:
        """The number of requests in flight at a replica."""
        ...

    def last_end(self, replica_id: str) -> float | None:
        """Time at which the last request at a replica ended, by `time.monotonic`; None: no request has ended."""
        ...

    async def last_byte(self, base_url: str) -> float:
        """When the last byte of an engine arrived, by `time.monotonic`; 0: not known."""
        ...

    def forget(self, replica_id: str) -> None:
        """Delete the records of a replica that has exited."""
        ...

    async def settled(self) -> None:
        """Wait until every gateway process uses the newest table and the counts include its requests.

        From then on no request is sent to a replica that is not in that table.
        """
        ...


class NoLoad:
    """A `ReplicaLoad` without a gateway."""

    def at(self, replica_id: str) -> int:
        return 0

    def last_end(self, replica_id: str) -> float | None:
        return None

    async def last_byte(self, base_url: str) -> float:
        return 0.0

    def forget(self, replica_id: str) -> None:
        """Nothing is recorded."""

    async def settled(self) -> None:
        """There is no gateway to wait for."""


class Tables(Protocol):
    """The source of the newest routing table."""

    @property
    def table(self) -> RoutingTable:
        """The current table; a request reads it once, without a lock."""
        ...


class Router(Tables, Protocol):
    """The part of the controller that the gateway uses."""

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        """Wait until `uid` has a target, for at most `deadline` seconds; loads an on-demand model.

        The caller must call `Balancer.begin` before its next await: only a counted request prevents the model from
        being unloaded.

        Raises:
            Problem: 404 for an unknown model; 503 with the stage when the deadline passes or the launch has failed;
                429 when too many requests wait for the model already.
        """
        ...
