"""The machine: its memory, its GPUs and its disks, and the replicas that own their bytes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from xinference.api.dependencies import DevicesDep
from xinference.api.device_schemas import Devices
from xinference.api.errors import ERROR_RESPONSES
from xinference.api.strict import StrictRoute

router = APIRouter(tags=["server"], route_class=StrictRoute, responses=ERROR_RESPONSES)


@router.get("/v1/devices", response_model=Devices)
async def devices(reader: DevicesDep) -> dict[str, Any]:
    """The memory, GPUs and disks of the machine, with the planned and the measured bytes of each replica"""
    return await reader.read()
