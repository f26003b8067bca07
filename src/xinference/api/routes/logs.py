"""The output of the engines of a deployment."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, StreamingResponse

from xinference.api.dependencies import ControllerDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.control.controller import Controller
from xinference.control.stop_notice import StopNotice
from xinference.error_codes import Code
from xinference.errors import SERVER_STOPPING, Problem, not_found
from xinference.process.log_links import heading, joined, logs_of, split_replica_name

router = APIRouter(tags=["models"], route_class=StrictRoute, responses=ERROR_RESPONSES)
MAX_LOG_LINES = 10_000
LOG_POLL_SECONDS = 0.5
Logs = Callable[[], Mapping[str, Path]]
"""Name of each replica -> its log, at the moment of the call."""


@router.get(
    "/v1/models/{model_uid}/logs",
    response_class=PlainTextResponse,
    response_model=None,
    responses=problems(404),
)
async def logs(
    controller: ControllerDep,
    model_uid: str,
    lines: Annotated[int, Query(ge=1, le=MAX_LOG_LINES)] = 40,
    follow: bool = False,
) -> PlainTextResponse | StreamingResponse:
    """The output of the engines of a deployment or, by its name, of one replica; with `follow` until the end.

    A model that has ended, or whose launch has failed, has its last log.
    """
    read_logs, goes_on = _find(controller, model_uid)
    shown = read_logs()
    text = await asyncio.to_thread(_tails, shown, lines)
    if not follow:
        return PlainTextResponse(text)
    positions = {path: path.stat().st_size for path in shown.values() if path.exists()}
    followed = _follow(text, positions, read_logs, goes_on, controller.stop_notice)
    return StreamingResponse(followed, media_type="text/plain; charset=utf-8")


def _find(controller: Controller, name: str) -> tuple[Logs, Callable[[], bool]]:
    """The logs of the deployment or replica with this name, and whether it has not ended.

    Raises:
        Problem: 404.
    """
    try:
        deployment = controller.deployment(name)
        return lambda: deployment.replica_logs, lambda: controller.has(deployment)
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

    def only() -> Mapping[str, Path]:
        return {each: path for each, path in owner.replica_logs.items() if each == name}

    def goes_on() -> bool:  # a replica that is started again keeps its number
        return controller.has(owner) and any(each["replica_id"] == replica[1] for each in owner.instance["replicas"])

    return only, goes_on


def _tails(paths: Mapping[str, Path], lines: int) -> str:
    """The last lines of each of these logs."""
    return joined({name: _tail(path, lines) for name, path in paths.items()}) if paths else ""


def _tail(path: Path, lines: int) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, maxlen=lines))
    except FileNotFoundError:
        return ""


async def _follow(
    text: str, positions: dict[Path, int], read_logs: Logs, goes_on: Callable[[], bool], stop_notice: StopNotice
) -> AsyncIterator[bytes]:
    """`text`, then the new output of the engines, also of those that are started later, until the deployment's end.

    Where there are several replicas, a line names the one whose output follows. If the server stops first, the last
    line says so.
    """
    yield text.encode()
    last = next(reversed([*read_logs()]), None)
    follows, stops = True, False
    while follows and not stops:
        stops = await stop_notice.sleep(LOG_POLL_SECONDS)
        follows = goes_on()  # the output is read once more after the end
        paths = read_logs()
        for name, path in paths.items():
            new = await asyncio.to_thread(_read_from, path, positions)
            if new and name != last and len(paths) > 1:
                yield heading(name).encode()
            if new:
                last = name
                yield new
    if stops:
        yield f"\n{SERVER_STOPPING}\n".encode()


def _read_from(path: Path, positions: dict[Path, int]) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = positions.get(path, 0)
            file.seek(start if start <= size else 0)  # a smaller file has been rotated
            data = file.read()
            positions[path] = file.tell()
            return data
    except FileNotFoundError:
        return b""
