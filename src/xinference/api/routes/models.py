"""Deployments: listing, describing and terminating them, and their events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from xinference.api import schemas
from xinference.api.dependencies import AddressDep, ControllerDep, KeyDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.replica_nodes import instances_with_machines
from xinference.api.responses import EVENT_STREAM, event_stream
from xinference.api.strict import StrictRoute
from xinference.deployments.views import alias_entry, listing_entry
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.keys.visibility import sees

router = APIRouter(tags=["models"], route_class=StrictRoute, responses=ERROR_RESPONSES)


@router.get("/v1/models/instances", response_model=list[schemas.Instance], response_model_exclude_unset=True)
async def instances(
    controller: ControllerDep,
    address: AddressDep,
    key: KeyDep,
    model_name: str | None = None,
    model_uid: str | None = None,
) -> list[dict[str, Any]]:
    """List all deployments with their status, including loading and failed ones."""
    every = instances_with_machines(controller, address)
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
