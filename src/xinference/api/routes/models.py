"""Deployments: listing, describing and terminating them, their events and logs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, StreamingResponse

from xinference.api import schemas
from xinference.api.dependencies import ControllerDep, KeyDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.responses import EVENT_STREAM, event_stream
from xinference.api.strict import StrictRoute
from xinference.control.stop_notice import StopNotice
from xinference.deployments.views import alias_entry, listing_entry
from xinference.error_codes import Code
from xinference.errors import SERVER_STOPPING, Problem
from xinference.keys.visibility import sees

router = APIRouter(tags=["models"], route_class=StrictRoute, responses=ERROR_RESPONSES)
MAX_LOG_LINES = 10_000
LOG_POLL_SECONDS = 0.5


@router.get("/v1/models/instances", response_model=list[schemas.Instance], response_model_exclude_unset=True)
async def instances(
    controller: ControllerDep, key: KeyDep, model_name: str | None = None, model_uid: str | None = None
) -> list[dict[str, Any]]:
    """List all deployments with their status, including loading and failed ones."""
    every = [deployment.instance for deployment in controller.deployments()]
    visible = [instance for instance in every if sees(key, instance["model_uid"])]
    return [i for i in visible if model_name in (None, i.get("model_name")) and model_uid in (None, i["model_uid"])]


@router.get(
    "/v1/models/{model_uid}",
    response_model=schemas.Model,
    response_model_exclude_unset=True,
    responses=problems(404, 503),
)
async def describe(controller: ControllerDep, model_uid: str) -> dict[str, Any]:
    """Describe a deployment by its uid or an alias, with the fields of an OpenAI model; 503 until it is launched."""
    uid = controller.uid_of(model_uid)
    deployment = controller.deployment(uid)
    if deployment.launching:
        stage = deployment.progress["stage"]
        raise Problem(Code.MODEL_LOADING, f"Model is loading, please retry later: {model_uid} is {stage}.")
    entry = listing_entry(uid, deployment.description)
    return entry if uid == model_uid else alias_entry(model_uid, entry)


@router.delete("/v1/models/{model_uid}", response_model=None, responses=problems(404))
async def terminate(controller: ControllerDep, model_uid: str) -> None:
    """Terminate a deployment, also while it loads; it has ended when the answer is sent."""
    await controller.terminate(model_uid)


@router.get(
    "/v1/models/{model_uid}/events",
    response_model=list[schemas.Event],
    responses={200: EVENT_STREAM, **problems(404)},
)
async def events(
    controller: ControllerDep, model_uid: str, follow: bool = False
) -> list[dict[str, Any]] | StreamingResponse:
    """List the events of a deployment; with `follow` stream them until it is ready or has failed."""
    if not follow:
        return controller.events(model_uid)
    return event_stream(controller.follow(model_uid))


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
    """The output of the engine; with `follow` until the deployment ends."""
    deployment = controller.deployment(model_uid)
    paths = deployment.log_paths
    text = await asyncio.to_thread(_tails, paths, lines)
    if not follow:
        return PlainTextResponse(text)
    followed = _follow(text, lambda: deployment.log_paths, lambda: controller.has(deployment), controller.stop_notice)
    return StreamingResponse(followed, media_type="text/plain; charset=utf-8")


def _tails(paths: Sequence[Path], lines: int) -> str:
    """The last lines of each of these logs."""
    return "".join(_tail(path, lines) for path in paths)


def _tail(path: Path, lines: int) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, maxlen=lines))
    except FileNotFoundError:
        return ""


async def _follow(
    text: str, paths: Callable[[], list[Path]], goes_on: Callable[[], bool], stop_notice: StopNotice
) -> AsyncIterator[bytes]:
    """`text`, then the new output of the engines, also of those that are started later, until the deployment's end.

    If the server stops first, the last line says so.
    """
    positions = {path: path.stat().st_size for path in paths() if path.exists()}
    yield text.encode()
    follows, stops = True, False
    while follows and not stops:
        stops = await stop_notice.sleep(LOG_POLL_SECONDS)
        follows = goes_on()  # the output is read once more after the end
        for path in paths():
            new = await asyncio.to_thread(_read_from, path, positions)
            if new:
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
