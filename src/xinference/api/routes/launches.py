"""A launch on its way: how far it is, cancelling it, and launching by a version's name."""

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
from xinference.errors import Problem, bad_request
from xinference.launch.plan import plan_entry

router = APIRouter(tags=["models"], route_class=StrictRoute, responses=ERROR_RESPONSES)


class InstanceBody(BaseModel):
    """What to launch, its version in one word."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_version: Text
    """``llama-2-chat--7B--ggufv2--Q4_K_M``"""
    model_uid: Text | None = None
    model_engine: Text | None = None
    model_type: Text = "LLM"
    replica: int = 1
    n_gpu: int | Literal["auto"] | None = "auto"

    def launch(self) -> LaunchBody:
        """The same as the body of a launch.

        Raises:
            Problem: 400, the version has not four parts.
        """
        parts = self.model_version.rsplit("--", 3)
        if len(parts) != 4 or not all(parts):
            raise bad_request(
                f"model_version {self.model_version!r} has not the form NAME--SIZEB--FORMAT--QUANTIZATION.",
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
    """Launch a version by its name; with `wait_ready` answer when it can be asked."""
    return await launch_and_wait(controller, body.launch(), wait_ready=wait_ready)


class AbortBody(BaseModel):
    """What clients of newer versions send."""

    block_duration: float = Field(default=30, ge=0, description="No effect: a later request with the same id is served")


@router.post(
    "/v1/models/{model_uid}/requests/{request_id}/abort", response_model=schemas.Message, responses=problems(404)
)
async def abort(
    controller: ControllerDep, running: AbortablesDep, model_uid: str, request_id: str, body: AbortBody | None = None
) -> dict[str, str]:
    """End a request that was sent with `request_id` in its body or `X-Request-Id` in its head; its engine stops."""
    controller.deployment(model_uid)  # a 404 if there is none
    return {"msg": "DONE" if await running.end(model_uid, request_id) else "NOT_FOUND"}


@router.get("/v1/models/{model_uid}/progress", response_model=schemas.Progress, responses=problems(404))
async def progress(controller: ControllerDep, model_uid: str) -> dict[str, Any]:
    """How far a launch is, by bytes where bytes move; 0 for a uid that is not known (yet)."""
    return controller.progress(model_uid)


@router.post("/v1/models/{model_uid}/cancel", response_model=None, responses=problems(404, 409))
async def cancel(controller: ControllerDep, model_uid: str) -> None:
    """End a launch that is on its way; what was fetched is kept."""
    await controller.cancel(model_uid)


@router.post(
    "/v1/models",
    response_model=schemas.ModelUid | schemas.LaunchPlanAnswer,
    responses=problems(404, 409, 413, 499, 502, 503, 504, 507),
)
async def launch(
    controller: ControllerDep, body: LaunchBody, wait_ready: bool = True, dry_run: bool = False
) -> dict[str, Any]:
    """Launch a model; with `dry_run` answer the plan instead, with `wait_ready` answer when it can be asked."""
    if dry_run:
        return plan_entry(*await controller.plan(body.request()))
    return await launch_and_wait(controller, body, wait_ready=wait_ready)


async def launch_and_wait(controller: Controller, body: LaunchBody, *, wait_ready: bool) -> dict[str, Any]:
    """Begin a launch, with `wait_ready` see it through.

    Raises:
        Problem: what can't be launched; with `wait_ready` also what failed later, and 499 if it was cancelled.
    """
    uid = await controller.launch(body.request(), remarks=body.warnings())
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
