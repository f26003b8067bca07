"""Autostart: the stored launches, which the next server restores."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from xinference.api import autostart_schemas
from xinference.api.dependencies import ControllerDep, SettingsDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.launch_body import Count, LaunchBody
from xinference.api.strict import StrictRoute
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.errors import bad_request
from xinference.timestamps import utc_time

router = APIRouter(tags=["kept launches"], route_class=StrictRoute, responses=ERROR_RESPONSES)
Json = dict[str, Any]
#: The order in which other versions start models; here all start at once.
PRIORITY = 100


class AutostartBody(BaseModel):
    """A launch that the next server restores. The fields of the launch may also stand beside `enabled`."""

    model_config = ConfigDict(extra="allow")

    enabled: bool = Field(
        default=True, description="False: the model keeps running, and the next server does not restore it"
    )
    priority: int | None = Field(default=None, description="No effect: all launches are restored at once")
    max_retries: Count | None = Field(default=None, description="No effect: `XINFERENCE_RESTART_LIMIT` decides")
    retry_interval_seconds: Count | None = Field(
        default=None, description="No effect: `XINFERENCE_RESTART_BACKOFF_SECONDS` decides"
    )
    launch: LaunchBody | None = None

    def launch_body(self) -> LaunchBody:
        """The launch.

        Raises:
            Problem: 400, there is none.
        """
        if self.launch is not None:
            return self.launch
        fields = {name: value for name, value in (self.model_extra or {}).items() if name != "state"}
        if not fields.get("model_name"):
            raise bad_request("launch is required: the fields of a launch, such as model_name.")
        return LaunchBody.model_validate(fields)


@router.get("/v1/autostart/models", response_model=autostart_schemas.AutostartModels)
async def autostart(controller: ControllerDep, settings: SettingsDep) -> Json:
    """List the launches that the next server restores"""
    return _autostart(controller, settings)


@router.get("/v1/autostart/models/summary", response_model=autostart_schemas.AutostartSummary)
async def autostart_summary(controller: ControllerDep) -> Json:
    """List the uids of the launches that the next server restores"""
    return _summary(controller)


@router.post(
    "/v1/autostart/models",
    response_model=autostart_schemas.AutostartModels,
    responses=problems(404, 409, 413, 502, 503, 504, 507),
)
async def put_autostart(controller: ControllerDep, settings: SettingsDep, body: AutostartBody) -> Json:
    """Launch a model that the next server restores, or change whether it restores a running one"""
    launch = body.launch_body()
    if body.enabled:
        is_cluster = controller.is_cluster
        launching = controller.launch(
            launch.request(is_cluster=is_cluster), new=launch.new, warnings=launch.warnings(is_cluster=is_cluster)
        )
        uid = (await controller.stop_notice.unless_given(launching)).uid
    else:
        uid = launch.model_uid or launch.model_name
    controller.set_restored(uid, restored=body.enabled)
    return _autostart(controller, settings)


@router.delete("/v1/autostart/models/{model_uid:path}", response_model=autostart_schemas.AutostartSummary)
async def remove_autostart(controller: ControllerDep, model_uid: str) -> Json:
    """Exclude a running model from those that the next server restores; it keeps running"""
    if any(kept.uid == model_uid for kept in controller.kept_launches()):
        controller.set_restored(model_uid, restored=False)
    return _summary(controller)


def _autostart(controller: Controller, settings: Settings) -> Json:
    statuses = {each.uid: str(each.status) for each in controller.deployments()}
    return {
        "models": [
            {
                "enabled": True,
                "priority": PRIORITY,
                "max_retries": settings.restart_limit,
                "retry_interval_seconds": settings.restart_backoff_seconds,
                "launch": {**kept.fields, "model_uid": kept.uid},
                "created_by": "",
                "updated_at": utc_time(kept.created),
                "state": {"instance_status": statuses.get(kept.uid)},
            }
            for kept in controller.kept_launches()
            if kept.is_restored
        ]
    }


def _summary(controller: Controller) -> Json:
    return {"models": [{"enabled": True, "model_uid": k.uid} for k in controller.kept_launches() if k.is_restored]}
