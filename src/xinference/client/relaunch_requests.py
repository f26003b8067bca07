"""The requests of newer clients to relaunch a part of a server: no server of this version has such parts."""

from __future__ import annotations

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.request import Request, path

_REASON = """Not supported: the server is one program; `xinference stop` and `xinference serve` restart it.

    Raises:
        Problem: 501 ``not_here``, always.
    """


def relaunch_api(python_executable: str | None = None, request_id: str | None = None) -> Request[Json]:
    return _relaunch("/v1/api/relaunch", python_executable, request_id)


def get_api_relaunch(operation_id: str) -> Request[Json]:
    return Request(path=path("v1", "api-relaunches", operation_id), read=answers.as_object)


def list_api_relaunches() -> Request[list[Json]]:
    return Request(path="/v1/api-relaunches", read=answers.as_objects)


def relaunch_supervisor(python_executable: str | None = None, request_id: str | None = None) -> Request[Json]:
    return _relaunch("/v1/supervisor/relaunch", python_executable, request_id)


def get_supervisor_relaunch(operation_id: str) -> Request[Json]:
    return Request(path=path("v1", "supervisor-relaunches", operation_id), read=answers.as_object)


def list_supervisor_relaunches() -> Request[list[Json]]:
    return Request(path="/v1/supervisor-relaunches", read=answers.as_objects)


def relaunch_worker(
    worker_address: str, python_executable: str | None = None, request_id: str | None = None
) -> Request[Json]:
    return _relaunch(path("v1", "workers", worker_address, "relaunch"), python_executable, request_id)


def get_worker_relaunch(operation_id: str) -> Request[Json]:
    return Request(path=path("v1", "worker-relaunches", operation_id), read=answers.as_object)


def list_worker_relaunches() -> Request[list[Json]]:
    return Request(path="/v1/worker-relaunches", read=answers.as_objects)


for _function in (
    *(relaunch_api, get_api_relaunch, list_api_relaunches, relaunch_supervisor, get_supervisor_relaunch),
    *(list_supervisor_relaunches, relaunch_worker, get_worker_relaunch, list_worker_relaunches),
):
    _function.__doc__ = _REASON


def _relaunch(where: str, python_executable: str | None, request_id: str | None) -> Request[Json]:
    body = {"python_executable": python_executable, "request_id": request_id}
    return Request(method="POST", path=where, body=body, read=answers.as_object)
