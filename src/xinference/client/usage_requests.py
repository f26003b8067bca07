"""The requests of the clients about requests to models: the last ones, those that run, the usage and the machine."""

from __future__ import annotations

from collections.abc import Sequence

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.request import Request, StreamRequest, path, query_of
from xinference.client.watch_events import WatchEvents


def list_requests(
    model: str | None = None,
    key: str | None = None,
    status: str | int | None = None,
    after: str | None = None,
    before: str | None = None,
    limit: int = 100,
) -> Request[list[Json]]:
    """The last requests that have ended, newest first.

    Args:
        key: the name or id of a key.
        status: ``404``, ``5xx`` or ``error``.
        after, before: the id of a request.
    """
    shown = None if status is None else str(status)
    query = query_of(model=model, key=key, status=shown, after=after, before=before, limit=str(limit))
    return Request(path="/v1/requests", query=query, read=answers.as_objects)


def list_active_requests(model: str | None = None) -> Request[list[Json]]:
    """The requests that have not ended, oldest first."""
    return Request(path="/v1/requests/active", query=query_of(model=model), read=answers.as_objects)


def abort_active_request(request_id: str) -> Request[Json]:
    """Abort a request by the id that `list_active_requests` returns."""
    return Request(method="POST", path=path("v1", "requests", request_id, "abort"), read=answers.as_object)


def stats(since: float | None = None, step: float | None = None, model: str | None = None) -> Request[Json]:
    """The rates of requests and the load of the machine over time, as columns.

    Args:
        since: seconds since the epoch.
        step: least seconds between two points: 2, 30 or 600.
    """
    numbers = {name: f"{value:g}" for name, value in (("step", step),) if value is not None}
    times = {} if since is None else {"since": f"{since:.0f}"}
    return Request(path="/v1/stats", query=query_of(model=model) | numbers | times, read=answers.as_object)


def devices() -> Request[Json]:
    """The memory, GPUs and disks of the machine, with the planned and the measured bytes of each replica."""
    return Request(path="/v1/devices", read=answers.as_object)


def watch(topics: Sequence[str] | None = None, last_event_id: str | None = None) -> StreamRequest[Json]:
    """The snapshot of the server, then its changes, each with ``id``, ``event`` and ``data``, until the event ``end``.

    Args:
        topics: some of ``models``, ``launches``, ``downloads``, ``requests``, ``events``, ``stats`` and ``devices``;
            by default all that the key permits.
        last_event_id: the ``id`` of the last event of an earlier stream, to continue it.
    """
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    query = query_of(topics=None if topics is None else ",".join(topics))
    return StreamRequest(path="/v1/watch", query=query, headers=headers, decoder=WatchEvents)


def usage(
    by: str = "model",
    begin: float | None = None,
    end: float | None = None,
    model: str | None = None,
    key: str | None = None,
) -> Request[list[Json]]:
    """The sum of the requests of the last 30 days.

    Args:
        by: some of ``model``, ``key``, ``path``, ``status``, ``minute``, ``hour`` and ``day``, separated by commas.
        begin, end: seconds since the epoch; by default the last day.
    """
    times = {name: f"{at:.0f}" for name, at in (("from", begin), ("to", end)) if at is not None}
    query = query_of(by=by, model=model, key=key) | times
    return Request(path="/v1/usage", query=query, read=answers.as_objects)
