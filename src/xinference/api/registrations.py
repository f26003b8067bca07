"""The models that can be launched, by type."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request

from xinference.api.errors import ERROR_RESPONSES
from xinference.api.models import controller_of
from xinference.catalog.match import match
from xinference.catalog.models import LaunchRequest, ModelFamily
from xinference.errors import bad_request
from xinference.planning.plan import MODEL_TYPES

router = APIRouter(prefix="/v1/model_registrations", responses=ERROR_RESPONSES)


@router.get("/{model_type}")
async def registrations(request: Request, model_type: str, detailed: bool = False) -> list[dict[str, Any]]:
    """The models there are, by name."""
    _check_type(model_type)
    every = controller_of(request).families.values()
    families = sorted(
        (f for f in every if f.model_type.lower() == model_type.lower()), key=lambda f: f.model_name.lower()
    )
    if detailed:
        return [_detailed(family) for family in families]
    return [{"model_name": family.model_name, "is_builtin": True} for family in families]


@router.get("/{model_type}/{model_name}")
async def registration(request: Request, model_type: str, model_name: str) -> dict[str, Any]:
    """One family, whole."""
    _check_type(model_type)
    return _detailed(match(controller_of(request).families, LaunchRequest(model_name=model_name)).family)


def _detailed(family: ModelFamily) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(family)
    return {**fields, "is_builtin": True}


def _check_type(model_type: str) -> None:
    if model_type.lower() not in MODEL_TYPES:
        raise bad_request(f"Unsupported model type: {model_type}.", hint="There are LLM, embedding and rerank.")
