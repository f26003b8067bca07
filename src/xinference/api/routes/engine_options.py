"""The options of an engine by name, before anything is launched."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from xinference.api import catalog_schemas
from xinference.api.dependencies import ControllerDep
from xinference.api.errors import ERROR_RESPONSES
from xinference.api.strict import StrictRoute

router = APIRouter(tags=["catalog"], route_class=StrictRoute, responses=ERROR_RESPONSES)


@router.get("/v1/engine_options/{engine}", response_model=catalog_schemas.EngineOptions)
async def engine_options(controller: ControllerDep, engine: str) -> dict[str, Any]:
    """List the options that a launch on an engine may have, with their types."""
    name, options = await controller.planner.option_tables.open_types(engine)
    return {"engine": name, "options": dict(options)}
