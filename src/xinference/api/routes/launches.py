"""Launching a model, its progress, cancelling a launch, and aborting a request."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from xinference.api import schemas
from xinference.api.dependencies import AbortablesDep, ControllerDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.launch_body import LaunchBody, Text
from xinference.api.strict import StrictRoute
from xinference.control.controller import Controller
from xinference.control.planned_launch import planned_entry
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, server_stopping
from xinference.store.event_log import STOPPING

router = APIRouter(tags=["models"], route_class=StrictRoute, responses=ERROR_RESPONSES)


class InstanceBody(BaseModel):
    """The model to launch, by the id of its version."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_version: Text
    """``llama-2-chat--7B--ggufv2--Q4_K_M``"""
    model_uid: Text | None = None
    model_engine: Text | None = None
    model_type: Text = "LLM"
    replica: int = 1
    n_gpu: int | Literal["auto"] | None = "auto"

    def launch(self) -> LaunchBody:
        """The body of the same launch.

        Raises:
            Problem: 400, the version does not have four parts.
        """
        parts = self.model_version.rsplit("--", 3)
        if len(parts) != 4 or not all(parts):
            raise bad_request(
                f"model_version {self.model_version!r} does not have the form NAME--SIZEB--FORMAT--QUANTIZATION.",
                hint="`GET /v1/models/{model_type}/{model_name}/versions` lists the versions of a model.",
            )
        name, size, model_format, quantization = parts
        fields = self.model_dump(exclude={"model_version"})
        named = {"model_name": name, "model_size_in_billions": size.removesuffix("B"), "model_format": model_format}
        return LaunchBody.model_validate({**fields, **named, "quantization": quantization})


@router.post(
    "/v1/models/instance", response_model=schemas.ModelUid, responses=problems(404, 409, 413, 499, 502, 503, 504, 507)
)
async def launch_version(controller: ControllerDep, body: InstanceBody, wait_ready: bool = True) -> dict[str, Any]:
    """Launch a version by its id; with `wait_ready` answer when it is ready."""
    return await launch_and_wait(controller, body.launch(), wait_ready=wait_ready)


class AbortBody(BaseModel):
    """The body that clients of newer versions send."""

    block_duration: float = Field(default=30, ge=0, description="No effect: a later request with the same id is served")


@router.post(
    "/v1/models/{model_uid}/requests/{request_id}/abort", response_model=schemas.Message, responses=problems(404)
)
async def abort(
    controller: ControllerDep, running: AbortablesDep, model_uid: str, request_id: str, body: AbortBody | None = None
) -> dict[str, str]:
    """Abort a request by the id that its body (`request_id`) or header (`X-Request-Id`) has; its engine stops."""
    controller.deployment(model_uid)  # a 404 if there is none
    return {"msg": "DONE" if await running.abort_all(model_uid, request_id) else "NOT_FOUND"}


@router.get("/v1/models/{model_uid}/progress", response_model=schemas.Progress, responses=problems(404))
async def progress(controller: ControllerDep, model_uid: str) -> dict[str, Any]:
    """The progress of a launch, by bytes while it downloads; 0 for an unknown uid."""
    return controller.progress(model_uid)


@router.get("/v1/requests/{request_id}/progress", response_model=schemas.RequestProgress)
async def request_progress(request_id: str) -> dict[str, Any]:
    """The progress of a request: always 0, because only image models report one, and they are not served."""
    return {"progress": 0.0, "elapsed_seconds": 0.0, "eta_seconds": None}


@router.post("/v1/models/{model_uid}/cancel", response_model=None, responses=problems(404, 409))
async def cancel(controller: ControllerDep, model_uid: str) -> None:
    """Cancel a launch; downloaded files are not deleted."""
    await controller.cancel(model_uid)


@router.post(
    "/v1/models",
    response_model=schemas.ModelUid | schemas.LaunchPlanAnswer,
    responses=problems(404, 409, 413, 499, 502, 503, 504, 507),
)
async def launch(
    controller: ControllerDep, body: LaunchBody, wait_ready: bool = True, dry_run: bool = False
) -> dict[str, Any]:
    """Launch a model; with `dry_run` answer only the plan, with `wait_ready` answer when the model is ready."""
    if dry_run:
        is_cluster = controller.is_cluster
        with body.naming_similar_fields():
            planned = await controller.stop_notice.unless_given(
                controller.plan(body.request(is_cluster=is_cluster), new=body.new)
            )
        return planned_entry(planned, body.warnings(is_cluster=is_cluster))
    return await launch_and_wait(controller, body, wait_ready=wait_ready)


async def launch_and_wait(controller: Controller, body: LaunchBody, *, wait_ready: bool) -> dict[str, Any]:
    """Start a launch, or find an equal one; with `wait_ready` wait for its end.

    Raises:
        Problem: the launch is rejected; with `wait_ready` also if it fails, and 499 if it is cancelled.
    """
    with body.naming_similar_fields():
        launched = await controller.stop_notice.unless_given(
            controller.launch(
                body.request(is_cluster=controller.is_cluster),
                new=body.new,
                warnings=body.warnings(is_cluster=controller.is_cluster),
            )
        )
    if wait_ready:
        await wait_until_ready(controller, launched.uid)
    return {"model_uid": launched.uid, "found": launched.found}


async def wait_until_ready(controller: Controller, uid: str) -> None:
    """Wait until a launch is complete.

    Raises:
        Problem: the launch has failed; 499, it is cancelled; 503, the server stops.
    """
    last: dict[str, Any] = {"event_type": ""}
    async for event in controller.follow(uid):
        last = event
    if last["event_type"] == STOPPING:
        raise server_stopping()
    if last.get("problem"):
        raise Problem.from_dict(last["problem"])
    if last["event_type"] == "TERMINATED":
        raise Problem(Code.LAUNCH_CANCELLED, f"The launch of {uid} was cancelled.", hint="Launch it again.")
