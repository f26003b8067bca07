"""The server itself."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from fastapi import APIRouter, Request

from xinference import __version__
from xinference.api import host_usage, schemas
from xinference.api.dependencies import address_of, controller_of, keyring_of
from xinference.api.errors import ERROR_RESPONSES
from xinference.api.strict import StrictRoute
from xinference.hardware.devices import read_host

router = APIRouter(tags=["server"], route_class=StrictRoute, responses=ERROR_RESPONSES)
STARTED = time.time()


@router.get("/status", response_model=schemas.ServerStatus)
async def status(request: Request) -> dict[str, Any]:
    """Version, process and how long it has been up (seconds), and what its machine uses (bytes)."""
    usage = await asyncio.to_thread(host_usage.usage)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime": int(time.time() - STARTED),
        "home": str(request.app.state.settings.home),
        "models": len(controller_of(request).deployments()),
        "workers": {
            address_of(request): {"update_time": time.time(), "failure_remaining_count": 0, "status": usage},
        },
    }


@router.get("/v1/address", response_model=str)
async def address(request: Request) -> str:
    """Where the server listens: ``host:port``."""
    return address_of(request)


@router.get("/v1/cluster/auth", response_model=schemas.Auth)
async def auth(request: Request) -> dict[str, bool]:
    """Whether a key is needed."""
    return {"auth": keyring_of(request).table.required}


@router.get("/v1/cluster/version", response_model=schemas.ServerVersion)
async def version() -> dict[str, str | None]:
    """The server's version."""
    return {"version": __version__, "full-revisionid": None}


@router.get("/v1/cluster/info", response_model=list[schemas.Node])
async def info(request: Request, detailed: bool = False) -> list[dict[str, Any]]:
    """The cluster's parts: one machine, which is both; with `detailed` what each has and has left (bytes)."""
    facts = await asyncio.to_thread(host_usage.node, detailed=detailed)
    ip = request.app.state.settings.host
    return [{"node_type": kind, "ip_address": ip, **facts} for kind in ("Supervisor", "Worker")]


@router.get("/v1/cluster/devices", response_model=int)
async def devices() -> int:
    """How many GPUs there are."""
    return len((await asyncio.to_thread(read_host)).gpus)


@router.get("/v1/workers", response_model=list[schemas.Worker], response_model_exclude_unset=True)
async def workers(request: Request) -> list[dict[str, Any]]:
    """The machines and their models."""
    models = {deployment.uid: deployment.description for deployment in controller_of(request).deployments()}
    return [{"work-ip": address_of(request), "models": models}]


@router.get("/v1/supervisor", response_model=schemas.Supervisor)
async def supervisor(request: Request) -> dict[str, str]:
    """Where the server is."""
    return {"supervisor_ip": address_of(request)}


@router.delete("/v1/clusters", response_model=schemas.Result)
async def stop(request: Request) -> dict[str, bool]:
    """End every engine and then this server. The deployments come back with the next server."""
    request.app.state.stop()
    return {"result": True}
