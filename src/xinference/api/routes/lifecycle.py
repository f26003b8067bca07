"""Unload, load, restart and reload a deployment, and the history of launches."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from xinference.api import schemas
from xinference.api.dependencies import ControllerDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.launch_body import Priority, Text
from xinference.api.routes.launches import wait_until_ready
from xinference.api.strict import StrictRoute
from xinference.control.controller import Controller
from xinference.control.launch_records import launch_record
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.deployments.views import listing_entry
from xinference.errors import bad_request

router = APIRouter(tags=["models"], route_class=StrictRoute, responses=ERROR_RESPONSES)
#: The statuses of a load.
_LOADS = problems(404, 409, 413, 429, 499, 502, 503, 504, 507)


class ReloadBody(BaseModel):
    """The changed parameters of a model."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    changes: dict[str, Any] = Field(
        min_length=1, alias="model_config", description="Options of the engine; null removes one"
    )
    drain_timeout: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=300, description="Maximum seconds for running requests to finish"
    )
    python_executable: Text | None = Field(
        default=None, description="Rejected: engines run in locked environments (`xinference env`)"
    )


class AliasesBody(BaseModel):
    """The further names of a model."""

    model_config = ConfigDict(extra="forbid")

    aliases: list[Text]


class TermsBody(BaseModel):
    """The fields of a launch to change while the model runs; fields that are left out stay as they are."""

    model_config = ConfigDict(extra="forbid")

    ttl: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Idle seconds until an on-demand model is unloaded; 0: only when another model needs the memory; "
        "null: as if the launch had not set it",
    )
    pin: bool = Field(default=False, description="Do not unload an on-demand model for another model")
    priority: Priority = Field(
        default=0, description="If memory is short, models of the lowest priority are unloaded first"
    )

    def changes(self) -> dict[str, Any]:
        """The fields that the request has.

        Raises:
            Problem: 400, it has none.
        """
        if not self.model_fields_set:
            raise bad_request("The body changes nothing.", hint="Send ttl, pin or priority.")
        return self.model_dump(exclude_unset=True)


@router.patch(
    "/v1/models/{model_uid}",
    response_model=schemas.Model,
    response_model_exclude_unset=True,
    responses=problems(404, 409, 413, 507),
)
async def set_terms(controller: ControllerDep, model_uid: str, body: TermsBody) -> dict[str, Any]:
    """Change when a model on demand is unloaded (`ttl`, `pin`, `priority`); at once and without a restart."""
    await controller.stop_notice.unless_given(controller.set_terms(model_uid, body.changes()))
    return _described(controller, model_uid)


@router.put(
    "/v1/models/{model_uid}/aliases",
    response_model=schemas.Model,
    response_model_exclude_unset=True,
    responses=problems(404, 409, 413, 507),
)
async def set_aliases(controller: ControllerDep, model_uid: str, body: AliasesBody) -> dict[str, Any]:
    """Give a deployment further names in requests, in place of its earlier ones; at once and without a restart."""
    await controller.stop_notice.unless_given(controller.set_aliases(model_uid, body.aliases))
    return _described(controller, model_uid)


@router.post(
    "/v1/models/{model_uid}/unload",
    response_model=schemas.Model,
    response_model_exclude_unset=True,
    responses=problems(404, 409, 507),
)
async def unload(controller: ControllerDep, model_uid: str) -> dict[str, Any]:
    """Stop the engines of a deployment after their running requests; it stays in the list until it is loaded again."""
    await controller.stop_notice.unless_given(controller.unload(model_uid))
    return _described(controller, model_uid)


@router.post(
    "/v1/models/{model_uid}/load", response_model=schemas.Model, response_model_exclude_unset=True, responses=_LOADS
)
async def load(controller: ControllerDep, model_uid: str, wait_ready: bool = True) -> dict[str, Any]:
    """Load a deployment that is unloaded or has failed; with `wait_ready` answer when it is ready."""
    await controller.stop_notice.unless_given(controller.load(model_uid, wait=wait_ready))
    if wait_ready:
        await wait_until_ready(controller, model_uid)
    return _described(controller, model_uid)


@router.post(
    "/v1/models/{model_uid}/restart", response_model=schemas.Model, response_model_exclude_unset=True, responses=_LOADS
)
async def restart(controller: ControllerDep, model_uid: str, wait_ready: bool = True) -> dict[str, Any]:
    """Stop a deployment after its running requests, and start it again; new requests wait meanwhile."""
    await controller.stop_notice.unless_given(controller.restart(model_uid))
    if wait_ready:
        await wait_until_ready(controller, model_uid)
    return _described(controller, model_uid)


@router.post("/v1/models/{model_uid}/reload", status_code=202, response_model=schemas.ReloadStatus, responses=_LOADS)
async def reload(controller: ControllerDep, model_uid: str, body: ReloadBody) -> dict[str, Any]:
    """Restart a deployment with changed engine options; the answer is sent once they are checked."""
    if body.python_executable is not None:
        raise bad_request("python_executable is not supported: each engine runs in its own locked environment.")
    await controller.reload(model_uid, body.changes, body.drain_timeout)
    return controller.reload_status(model_uid)


@router.get("/v1/models/{model_uid}/reload", response_model=schemas.ReloadStatus, responses=problems(404))
async def reload_status(controller: ControllerDep, model_uid: str) -> dict[str, Any]:
    """The state of the last reload of a deployment."""
    return controller.reload_status(model_uid)


@router.get("/v1/models/{model_uid}/reload/config", response_model=schemas.ReloadConfig, responses=problems(404))
async def reload_config(controller: ControllerDep, model_uid: str) -> dict[str, Any]:
    """The engine options of a deployment: their types, and those that are set."""
    request, engine = controller.running(model_uid).plan.request, controller.running(model_uid).plan.engine
    return {
        "enabled": True,
        "engine": engine,
        "model_config": dict(request.options),
        "parameters": dict(await controller.planner.option_tables.types(engine)),
        "hot_parameters": [],
    }


@router.get("/v1/launch_history", response_model=list[schemas.LaunchRecord])
async def launch_history(
    controller: ControllerDep, model_name: str | None = None, failed: bool = False
) -> list[dict[str, Any]]:
    """List the last launches, newest first, also those that have failed or ended."""
    records = [launch_record(row) for row in controller.history.all()]
    return [
        record
        for record in records
        if model_name in (None, record["model_name"]) and (not failed or record["status"] == "failed")
    ]


def _described(controller: Controller, uid: str) -> dict[str, Any]:
    deployment: Deployment | BrokenDeployment = controller.deployment(uid)
    return listing_entry(uid, deployment.description)
