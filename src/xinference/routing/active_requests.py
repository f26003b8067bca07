"""The requests that have not ended yet, over all gateway processes."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from xinference.records.record import LOCAL_NODE


class ActiveRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request that has not ended; see `records.record.Record` for the fields of the same names."""

    request_id: str
    started: float
    key_id: str
    model: str
    replica: str
    path: str
    stream: bool
    seconds: float
    """Since the request's head."""
    first_token: float | None
    output_tokens: int | None
    """An estimate: the events of the stream until now; None: no content yet."""
    waits_for: str
    """``load``, ``recovery``, ``permit`` or ``quota``; empty: the request does not wait."""
    node: str = LOCAL_NODE


def active_view(each: ActiveRequest, key_name: str | None) -> dict[str, Any]:
    """The JSON form of a request, as the management API returns it."""
    return {
        "id": each.request_id,
        "node": each.node,
        "started": each.started,
        "key": key_name,
        "key_id": each.key_id or None,
        "model": each.model or None,
        "replica": each.replica or None,
        "path": each.path,
        "stream": each.stream,
        "seconds": each.seconds,
        "first_token": each.first_token,
        "output_tokens": each.output_tokens,
        "waits_for": each.waits_for or None,
    }


class ActiveRequests(Protocol):
    """Lists and aborts requests, in one process or in several."""

    async def active(self) -> list[ActiveRequest]:
        """The requests that have not ended."""
        ...

    async def abort_request(self, request_id: str) -> bool:
        """Abort one of them; returns whether there was one of this id."""
        ...

    async def collect(self) -> None:
        """Wait until the records of all requests that have ended are here."""
        ...
