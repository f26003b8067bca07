"""Lists which versions of models fit on this machine with each engine, with the memory that is free now."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Response

from xinference.api import catalog_schemas
from xinference.api.dependencies import ControllerDep
from xinference.api.errors import ERROR_RESPONSES
from xinference.api.strict import StrictRoute
from xinference.control.family_selection import select_families

router = APIRouter(tags=["catalog"], route_class=StrictRoute, responses=ERROR_RESPONSES)
Json = dict[str, Any]


@router.get("/v1/fits", response_model=list[catalog_schemas.Fit])
async def fits(controller: ControllerDep, model_type: str | None = None, part: str = "") -> Response:
    """List each version with each engine: whether it fits now, after models are unloaded, or never, and why.

    `part` limits the list to the names that contain this text.
    """
    families = select_families(controller.families, model_type, part)
    found = await controller.planner.fits(families)
    # FastAPI's own encoder takes seconds for 5,000 entries. One entry at a time: the garbage collector would look at
    # all of them again and again.
    encode = msgspec.json.Encoder().encode
    body = b",".join([encode(fit.to_dict()) for fit in found])
    return Response(b"[%b]" % body, media_type="application/json")
