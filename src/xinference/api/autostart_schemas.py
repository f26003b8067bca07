"""The answers of the routes about the launches that the next server restores, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from xinference.api.schemas import Answer, Status


class AutostartState(Answer):
    """The present state of a launch."""

    instance_status: Status | None


class AutostartModel(Answer):
    """A launch that the next server restores."""

    enabled: bool
    priority: int
    max_retries: int
    retry_interval_seconds: float
    launch: dict[str, Any] = Field(description="The fields of the launch, for `POST /v1/models`")
    state: AutostartState


class AutostartModels(Answer):
    """The launches that the next server restores."""

    models: list[AutostartModel]


class AutostartUid(Answer):
    """The uid of a launch that the next server restores."""

    enabled: bool
    model_uid: str


class AutostartSummary(Answer):
    """The uids of the launches that the next server restores."""

    models: list[AutostartUid]
