"""The server itself."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from fastapi import APIRouter

from xinference import __version__
from xinference.api import host_usage, schemas
from xinference.api.dependencies import AddressDep, ControllerDep, KeyringDep, SettingsDep, StartedDep, StopDep
from xinference.api.errors import ERROR_RESPONSES
from xinference.api.strict import StrictRoute
from xinference.hardware.devices import read_host

router = APIRouter(tags=["server"], route_class=StrictRoute, responses=ERROR_RESPONSES)


@router.get("/status", response_model=schemas.ServerStatus)
async def status(
    controller: ControllerDep, settings: SettingsDep, started: StartedDep, address: AddressDep
) -> dict[str, Any]:
    """Version, process and how long it has been up (seconds), and what its machine uses (bytes)."""
    usage = await asyncio.to_thread(host_usage.usage)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime": int(time.monotonic() - started),
        "home": str(settings.home),
        "models": len(controller.deployments()),
        "workers": {
            address: {"update_time": time.time(), "failure_remaining_count": 0, "status": usage},
        },
    }


@router.get("/v1/address", response_model=str)
async def address(address: AddressDep) -> str:
    """Where the server listens: ``host:port``."""
    return address


@router.get("/v1/cluster/auth", response_model=schemas.Auth)
async def auth(keys: KeyringDep) -> dict[str, bool]:
    """Whether a key is needed."""
    return {"auth": keys.table.required}


@router.get("/v1/cluster/version", response_model=schemas.ServerVersion)
async def version() -> dict[str, str | None]:
    """The server's version."""
    return {"version": __version__, "full-revisionid": None}


@router.get("/v1/cluster/info", response_model=list[schemas.Node], response_model_exclude_unset=True)
async def info(settings: SettingsDep, detailed: bool = False) -> list[dict[str, Any]]:
    """The cluster's parts: one machine, which is both; with `detailed` what each has and has left (bytes)."""
    facts = await asyncio.to_thread(host_usage.node, detailed=detailed)
    return [{"node_type": kind, "ip_address": settings.host, **facts} for kind in ("Supervisor", "Worker")]


@router.get("/v1/cluster/devices", response_model=int)
async def devices() -> int:
    """How many GPUs there are."""
    return len((await asyncio.to_thread(read_host)).gpus)


@router.get("/v1/workers", response_model=list[schemas.Worker], response_model_exclude_unset=True)
async def workers(controller: ControllerDep, address: AddressDep) -> list[dict[str, Any]]:
    """The machines and their models."""
    models = {deployment.uid: deployment.description for deployment in controller.deployments()}
    return [{"work-ip": address, "models": models}]


@router.get("/v1/supervisor", response_model=schemas.Supervisor)
async def supervisor(address: AddressDep) -> dict[str, str]:
    """Where the server is."""
    return {"supervisor_ip": address}


@router.delete("/v1/clusters", response_model=schemas.Result)
async def stop(stop_server: StopDep) -> dict[str, bool]:
    """End every engine and then this server. The deployments come back with the next server."""
    stop_server()
    return {"result": True}
