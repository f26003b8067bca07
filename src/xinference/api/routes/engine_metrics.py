"""The metrics of the engines, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from xinference.api.dependencies import EngineScraperDep
from xinference.api.errors import ERROR_RESPONSES
from xinference.api.strict import StrictRoute

router = APIRouter(tags=["metrics"], route_class=StrictRoute, responses=ERROR_RESPONSES)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/metrics/engines", response_class=PlainTextResponse)
async def engines(scraper: EngineScraperDep) -> PlainTextResponse:
    """The metrics of all engines under their own names, and one common set, in Prometheus' text format."""
    return PlainTextResponse(await scraper.text(), media_type=CONTENT_TYPE)
