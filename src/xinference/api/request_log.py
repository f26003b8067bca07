"""The requests of the data path, for the management API: those that run, the records of the last, and the totals."""

from __future__ import annotations

from dataclasses import dataclass

from xinference.control.stats import Sampler
from xinference.control.usage import Usage
from xinference.keys.key import Key
from xinference.records.hub import RecordHub
from xinference.routing.active_requests import ActiveRequest, ActiveRequests


@dataclass(frozen=True, slots=True)
class RequestLog:
    """The requests of all gateway processes."""

    hub: RecordHub
    usage: Usage
    running: ActiveRequests
    sampler: Sampler

    async def active(self, key_id: str | None) -> list[ActiveRequest]:
        """The requests that have not ended, oldest first: those of a key, or all."""
        return [each for each in await self.running.active() if key_id in (None, each.key_id)]


def own_id(key: Key | None) -> str | None:
    """The id by which the rows of a key's own requests are chosen; None: its holder may see those of all keys."""
    return None if key is None or not key.scopes.isdisjoint(("manage", "monitor")) else key.key_id


def abortable_id(key: Key | None) -> str | None:
    """The same for the requests that its holder may abort."""
    return None if key is None or "manage" in key.scopes else key.key_id
