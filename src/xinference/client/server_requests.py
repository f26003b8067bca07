"""The requests about the server itself: its state, its log and its machines; see `request`."""

from __future__ import annotations

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.request import Request, StreamRequest, path


def health() -> Request[Json]:
    """``{"status": "ok"}`` if an Xinference server answers."""
    return Request(path="/health", read=answers.as_health)


def auth() -> Request[Json]:
    """``{"auth": true}`` if the server requires a key."""
    return Request(path="/v1/cluster/auth", read=answers.as_object)


def request_token(username: str, password: str) -> Request[str]:
    """A token for this user."""
    body = {"username": username, "password": password}
    return Request(method="POST", path="/token", body=body, read=answers.as_token)


def status() -> Request[Json]:
    """Version, uptime (seconds) and machine of the server."""
    return Request(path="/status", read=answers.as_object)


def server_logs(*, lines: int = 40, follow: bool = False) -> StreamRequest[str]:
    """The last `lines` lines of the server's own log, in arbitrary pieces; with `follow` also its further lines."""
    query = {"lines": str(lines), "follow": str(follow).lower()}
    return StreamRequest(path="/v1/logs", query=query, decoder=answers.Text)


def get_progress(request_id: str) -> Request[Json]:
    """The progress of a request: always 0, because only image models report one. See `get_launch_model_progress`."""
    return Request(path=path("v1", "requests", request_id, "progress"), read=answers.as_object)


def get_workers_info() -> Request[list[Json]]:
    """The machines that run models, with their models."""
    return Request(path="/v1/workers", read=answers.as_objects)


def get_supervisor_info() -> Request[Json]:
    """The address of the server."""
    return Request(path="/v1/supervisor", read=answers.as_object)


def abort_cluster() -> Request[Json]:
    """Stop the server and its engines; the next server restores the models."""
    return Request(method="DELETE", path="/v1/clusters", read=answers.as_object)
