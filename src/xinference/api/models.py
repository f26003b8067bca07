"""Launch, look at and terminate deployments."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from xinference.api import answers
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.launch_body import LaunchBody
from xinference.api.strict import StrictRoute
from xinference.catalog.models import ModelFamily
from xinference.catalog.registrations import model_type_of
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.deployments.views import listing_entry
from xinference.errors import Problem
from xinference.keys.visibility import key_of, sees
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest

router = APIRouter(tags=["models"], route_class=StrictRoute, responses=ERROR_RESPONSES)
MAX_LOG_LINES = 10_000
LOG_POLL_SECONDS = 0.5
#: What a route answers that follows events if it is asked to.
EVENT_STREAM: dict[str, Any] = {
    "description": "A list; with `follow` server-sent events until the last one",
    "content": {"text/event-stream": {}},
}


def controller_of(request: Request) -> Controller:
    controller: Controller = request.app.state.controller
    return controller


def address_of(request: Request) -> str:
    """Where this server listens: ``host:port``."""
    settings: Settings = request.app.state.settings
    return f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"


def family_of(request: Request, model_name: str, model_type: str | None = None) -> ModelFamily:
    """A family by its name, whatever the case; with `model_type` only one of that type.

    Raises:
        Problem: 404, with the near ones; 400, there is no such type.
    """
    known = controller_of(request).families
    if model_type is not None:
        wanted = model_type_of(model_type)
        known = {name: family for name, family in known.items() if family.model_type == wanted}
    try:
        return match(known, LaunchRequest(model_name=model_name)).family
    except Problem as problem:
        raise Problem(problem.code, 404, problem.cause, hint=problem.hint) from None


@router.post(
    "/v1/models",
    response_model=answers.ModelUid | answers.LaunchPlanAnswer,
    responses=problems(404, 409, 413, 499, 502, 503, 504, 507),
)
async def launch(request: Request, body: LaunchBody, wait_ready: bool = True, dry_run: bool = False) -> dict[str, Any]:
    """Launch a model; with `dry_run` answer the plan instead, with `wait_ready` answer when it can be asked."""
    if dry_run:
        return (await controller_of(request).plan(body.request())).to_dict()
    return await launch_and_wait(controller_of(request), body, wait_ready=wait_ready)


async def launch_and_wait(controller: Controller, body: LaunchBody, *, wait_ready: bool) -> dict[str, Any]:
    """Begin a launch, with `wait_ready` see it through.

    Raises:
        Problem: what can't be launched; with `wait_ready` also what failed later, and 499 if it was cancelled.
    """
    uid = await controller.launch(body.request(), remarks=body.remarks())
    if not wait_ready:
        return {"model_uid": uid}
    deployment, last = controller.deployment(uid), ""
    async for event in controller.follow(uid):
        last = event["event_type"]
    if deployment.problem is not None:
        raise deployment.problem
    if last == "TERMINATED":
        raise Problem("launch_cancelled", 499, f"The launch of {uid} was cancelled.", hint="Launch it again.")
    return {"model_uid": uid}


@router.get("/v1/models/instances", response_model=list[answers.Instance], response_model_exclude_unset=True)
async def instances(
    request: Request, model_name: str | None = None, model_uid: str | None = None
) -> list[dict[str, Any]]:
    """Every deployment with its status, also those that load or have failed."""
    key = key_of(request.scope)
    every = [deployment.instance for deployment in controller_of(request).deployments()]
    found = [instance for instance in every if sees(key, instance["model_uid"])]
    return [i for i in found if model_name in (None, i.get("model_name")) and model_uid in (None, i["model_uid"])]


@router.get(
    "/v1/models/{model_uid}",
    response_model=answers.Model,
    response_model_exclude_unset=True,
    responses=problems(404, 503),
)
async def describe(request: Request, model_uid: str) -> dict[str, Any]:
    """One deployment, with OpenAI's fields of a model; 503 while it is launched, `/progress` says how far it is."""
    deployment = controller_of(request).deployment(model_uid)
    if deployment.launching:
        stage = deployment.progress["stage"]
        raise Problem("model_loading", 503, f"Model is loading, please retry later: {model_uid} is {stage}.")
    return listing_entry(model_uid, deployment.description)


@router.delete("/v1/models/{model_uid}", response_model=None, responses=problems(404))
async def terminate(request: Request, model_uid: str) -> None:
    """End a deployment, also one that is still loading; it is gone when this answers."""
    await controller_of(request).terminate(model_uid)


@router.get(
    "/v1/models/{model_uid}/events",
    response_model=list[answers.Event],
    responses={200: EVENT_STREAM, **problems(404)},
)
async def events(request: Request, model_uid: str, follow: bool = False) -> list[dict[str, Any]] | StreamingResponse:
    """What happened to a deployment; with `follow` as server-sent events until it is ready or has failed."""
    controller = controller_of(request)
    if not follow:
        return controller.events(model_uid)
    return event_stream(controller.follow(model_uid))


def event_stream(stream: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Events as server-sent events, for as long as the client listens."""

    async def lines() -> AsyncIterator[bytes]:
        async for event in stream:
            yield b"data: " + msgspec.json.encode(event) + b"\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@router.get(
    "/v1/models/{model_uid}/logs",
    response_class=PlainTextResponse,
    response_model=None,
    responses=problems(404),
)
async def logs(
    request: Request,
    model_uid: str,
    lines: Annotated[int, Query(ge=1, le=MAX_LOG_LINES)] = 40,
    follow: bool = False,
) -> PlainTextResponse | StreamingResponse:
    """The engine's own output."""
    paths = controller_of(request).deployment(model_uid).log_paths
    text = "".join([await asyncio.to_thread(_tail, path, lines) for path in paths])
    if not follow:
        return PlainTextResponse(text)
    return StreamingResponse(_follow(text, list(paths)), media_type="text/plain; charset=utf-8")


def _tail(path: Path, lines: int) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, maxlen=lines))
    except FileNotFoundError:
        return ""


async def _follow(text: str, paths: list[Path]) -> AsyncIterator[bytes]:
    positions = {path: path.stat().st_size for path in paths if path.exists()}
    yield text.encode()
    while True:
        await asyncio.sleep(LOG_POLL_SECONDS)
        for path in paths:
            new = await asyncio.to_thread(_read_from, path, positions)
            if new:
                yield new


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
