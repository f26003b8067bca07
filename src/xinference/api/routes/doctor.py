"""The check of the server's machine."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from xinference.api import server_schemas
from xinference.api.dependencies import SettingsDep
from xinference.api.errors import ERROR_RESPONSES
from xinference.api.strict import StrictRoute
from xinference.control import checkup

router = APIRouter(tags=["server"], route_class=StrictRoute, responses=ERROR_RESPONSES)


@router.get("/v1/doctor", response_model=list[server_schemas.Finding])
async def findings(settings: SettingsDep) -> list[dict[str, Any]]:
    """Check the machine: CPU, memory, GPUs, disks, hubs and engines, and what a missing one prevents. Takes seconds."""
    return [each.to_dict() for each in await asyncio.to_thread(checkup.examine, settings)]
