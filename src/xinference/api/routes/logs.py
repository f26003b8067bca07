"""The output of the engines of a deployment, and the log of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from xinference.api.dependencies import ControllerDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.replica_nodes import readable_logs
from xinference.api.strict import StrictRoute
from xinference.control.controller import Controller
from xinference.control.followed_logs import Log, follow_log, follow_logs, labelled
from xinference.control.linked_log import LinkedLog
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, not_found
from xinference.log_position import LogPosition, Piece
from xinference.process.log_links import joined, logs_of, replica_name, split_replica_name
from xinference.process.log_reader import read_from, read_last_lines
from xinference.recent_log import RECENT

router = APIRouter(tags=["models"], route_class=StrictRoute, responses=ERROR_RESPONSES)
MAX_LOG_LINES = 10_000
TEXT = "text/plain; charset=utf-8"
#: The header with the place of the log at which the text ends; of a stream, with that at which it begins.
OFFSET_HEADER = "X-Log-Offset"
Logs = Callable[[], Mapping[str, Log]]
"""Name of each replica -> its log, at the moment of the call."""

Lines = Annotated[int, Query(ge=1, le=MAX_LOG_LINES)]
Offset = Annotated[str | None, Query(max_length=120, description=f"The value of {OFFSET_HEADER} of an earlier answer")]


@router.get(
    "/v1/models/{model_uid}/logs",
    response_class=PlainTextResponse,
    response_model=None,
    responses=problems(404),
)
async def logs(
    controller: ControllerDep,
    model_uid: str,
    lines: Lines = 40,
    follow: bool = False,
    replica: Annotated[int | None, Query(ge=0, le=999_999_999)] = None,
    offset: Offset = None,
) -> Response:
    """The output of the engines of a deployment or, with `replica` or by its name, of one replica.

    With `follow` the answer goes on until the end of the model or the replica. A model that has ended, or whose launch
    has failed, has its last log. `offset` continues the log of one replica; with `follow` until its process ends.
    """
    name = model_uid if replica is None else replica_name(model_uid, replica)
    read_logs, goes_on = _find(controller, name)
    shown = dict(read_logs())
    position = _parse(offset)
    if position is not None:
        path = _only(name, shown)
        if isinstance(path, LinkedLog):
            piece = await path.read_from(position)
        else:
            piece = await asyncio.to_thread(read_from, path, position)
        ends = (lambda: path not in read_logs().values() or not goes_on()) if follow else None
        return _answer(piece, follow_log(path, piece, ends, controller.stop_notice) if ends else None)
    if len(shown) == 1:
        (path,) = shown.values()
        piece = await _last_lines(path, lines)
        followed = follow_logs({path: piece}, piece.data, read_logs, goes_on, controller.stop_notice)
        return _answer(piece, followed if follow else None)
    tails = await _tails(shown, lines)
    texts = {labelled(each, shown[each]): piece.data.decode("utf-8", "replace") for each, piece in tails.items()}
    text = joined(texts) if texts else ""
    if not follow:
        return PlainTextResponse(text)
    pieces = {shown[each]: piece for each, piece in tails.items()}
    followed = follow_logs(pieces, text.encode(), read_logs, goes_on, controller.stop_notice)
    return StreamingResponse(followed, media_type=TEXT)


@router.get("/v1/logs", tags=["server"], response_class=PlainTextResponse, response_model=None)
async def server_logs(
    controller: ControllerDep, lines: Lines = 40, follow: bool = False, offset: Offset = None
) -> Response:
    """The log of the server since its start, at most the last MiB; with `follow` also what it logs from now on."""
    position = _parse(offset)
    piece = RECENT.read_last_lines(lines) if position is None else RECENT.read_from(position)
    return _answer(piece, RECENT.follow(piece, controller.stop_notice) if follow else None)


def _answer(piece: Piece, followed: AsyncIterator[bytes] | None) -> Response:
    """The text with the place of its end, or a stream with that of its begin."""
    if followed is None:
        return Response(piece.data, media_type=TEXT, headers={OFFSET_HEADER: str(piece.end)})
    begin = piece.end.before(len(piece.data))
    headers = {OFFSET_HEADER: str(begin), "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(followed, media_type=TEXT, headers=headers)


def _parse(offset: str | None) -> LogPosition | None:
    if offset is None:
        return None
    position = LogPosition.parse(offset)
    if position is None:
        raise bad_request(
            f"`offset` is not a place in a log: {offset!r}.", hint=f"Use the header {OFFSET_HEADER}, or 0."
        )
    return position


def _only(name: str, shown: Mapping[str, Log]) -> Log:
    """The log of the only replica."""
    if len(shown) == 1:
        return next(iter(shown.values()))
    if shown:
        cause = f"`offset` is a place in the log of one replica, and {name} has {len(shown)} replicas."
        raise bad_request(cause, hint=f"Add `replica=N`. Replicas: {', '.join(shown)}.")
    raise not_found(f"{name} has no log yet.", hint="Ask again when its engine starts.", code=Code.MODEL_NOT_FOUND)


def _find(controller: Controller, name: str) -> tuple[Logs, Callable[[], bool]]:
    """The logs of the deployment or replica with this name, and whether it has not ended.

    Raises:
        Problem: 404.
    """
    try:
        deployment: Deployment | BrokenDeployment = controller.deployment(name)
        return lambda: readable_logs(controller, deployment.replica_logs), lambda: controller.has(deployment)
    except Problem:
        replica = split_replica_name(name)
        if replica is None or replica[0] not in {each.uid for each in controller.deployments()}:
            if logs_of(controller.log_dir, name):  # of a model that has ended, or of a launch that has failed
                return lambda: logs_of(controller.log_dir, name), lambda: False
            raise
    owner = controller.deployment(replica[0])
    if name not in owner.replica_logs:
        running = ", ".join(owner.replica_logs) or "none"
        cause = f"{owner.uid} has no replica {replica[1]} that runs."
        raise not_found(cause, hint=f"Replicas with a log: {running}.", code=Code.MODEL_NOT_FOUND)

    def only() -> Mapping[str, Log]:
        return readable_logs(controller, {each: log for each, log in owner.replica_logs.items() if each == name})

    def goes_on() -> bool:  # a replica that is started again keeps its number
        return controller.has(owner) and any(each["replica_id"] == replica[1] for each in owner.instance["replicas"])

    return only, goes_on


async def _last_lines(log: Log, lines: int) -> Piece:
    if isinstance(log, LinkedLog):
        return await log.read_last_lines(lines)
    return await asyncio.to_thread(read_last_lines, log, lines)


async def _tails(logs: Mapping[str, Log], lines: int) -> dict[str, Piece]:
    """The last lines of each of these logs. One whose node does not answer has a line with the reason."""
    found = await asyncio.gather(*(_tail(log, lines) for log in logs.values()))
    return dict(zip(logs, found, strict=True))


async def _tail(log: Log, lines: int) -> Piece:
    try:
        return await _last_lines(log, lines)
    except Problem as problem:
        return Piece(f"{problem.cause}\n".encode(), LogPosition("", 0))
