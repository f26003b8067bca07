"""The requests of a server in whose test no gateway runs."""

from __future__ import annotations

from xinference.routing.active_requests import ActiveRequest


class NoRequests:
    """The requests of a server without a gateway."""

    async def active(self) -> list[ActiveRequest]:
        return []

    async def abort_request(self, request_id: str) -> bool:
        return False

    async def collect(self) -> None:
        """There is nothing to wait for."""
