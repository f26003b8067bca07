"""Drafts the JSON of a registration from a model's own files, for review before it is registered."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from xinference.api.dependencies import ControllerDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.errors import bad_request
from xinference.weights.reference import reference
from xinference.weights.registration_draft import document

router = APIRouter(tags=["registrations"], route_class=StrictRoute, responses=ERROR_RESPONSES)


class AutoRegisterBody(BaseModel):
    """The model to describe."""

    model_config = ConfigDict(protected_namespaces=())

    model_path: str = Field(min_length=1, description="A path on the server's machine, or a repository id of a hub")
    model_family: str = Field(
        "other", min_length=1, description="The built-in model that it is derived from, or `other`"
    )


@router.post(
    "/v1/models/llm/auto-register", response_model=dict[str, Any], responses=problems(404, 413, 415, 502, 503, 504)
)
async def auto_register(controller: ControllerDep, body: AutoRegisterBody) -> dict[str, Any]:
    """Draft the JSON of a registration from the model's files; nothing is registered."""
    if reference(body.model_path) is None:
        raise bad_request(
            f"model_path {body.model_path!r} is neither a path nor a repository id.",
            hint="Give an absolute path on the server's machine, or an id such as org/repo.",
        )
    return document(await controller.planner.family(body.model_path), body.model_family)
