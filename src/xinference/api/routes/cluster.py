"""The server: status, version, address, machine, and stopping it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

from fastapi import APIRouter

from xinference import __version__
from xinference.api import host_usage, node_entries, server_schemas
from xinference.api.dependencies import AddressDep, ControllerDep, KeyDep, KeyringDep, SettingsDep, StartedDep, StopDep
from xinference.api.errors import ERROR_RESPONSES
from xinference.api.strict import StrictRoute
from xinference.keys.visibility import manages

log = logging.getLogger(__name__)
router = APIRouter(tags=["server"], route_class=StrictRoute, responses=ERROR_RESPONSES)


@router.get("/status", response_model=server_schemas.ServerStatus)
async def status(
    controller: ControllerDep, settings: SettingsDep, started: StartedDep, address: AddressDep, key: KeyDep
) -> dict[str, Any]:
    """Version, process and uptime (seconds) of the server, and the resources that its machine uses (bytes).

    `home` is null without the permission `manage`.
    """
    usage = await asyncio.to_thread(host_usage.usage)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime": int(time.monotonic() - started),
        "home": str(settings.home) if manages(key) else None,
        "models": len(controller.deployments()),
        "workers": {
            address: {"update_time": time.time(), "failure_remaining_count": 0, "status": usage},
        },
    }


@router.get("/v1/address", response_model=str)
async def address(address: AddressDep) -> str:
    """The address that the server listens on: ``host:port``."""
    return address


@router.get("/v1/cluster/auth", response_model=server_schemas.Auth)
async def auth(keys: KeyringDep) -> dict[str, bool]:
    """Whether requests need a key."""
    return {"auth": keys.table.required}


@router.get("/v1/cluster/version", response_model=server_schemas.ServerVersion)
async def version() -> dict[str, str | None]:
    """The server's version."""
    return {"version": __version__, "full-revisionid": None}


@router.get("/v1/cluster/info", response_model=list[server_schemas.Node], response_model_exclude_unset=True)
async def info(controller: ControllerDep, settings: SettingsDep, detailed: bool = False) -> list[dict[str, Any]]:
    """The supervisor and the workers of the cluster; with `detailed` their total and free resources (bytes)."""
    facts = await asyncio.to_thread(host_usage.node, detailed=detailed)
    kinds = ("Supervisor",) if settings.no_models else ("Supervisor", "Worker")
    own = [{"node_type": kind, "ip_address": settings.host, **facts} for kind in kinds]
    return [*own, *node_entries.worker_facts(controller, detailed=detailed)]


@router.get("/v1/cluster/devices", response_model=int)
async def devices(controller: ControllerDep) -> int:
    """The number of GPUs."""
    return len((await controller.node.host()).gpus)


@router.get("/v1/workers", response_model=list[server_schemas.Worker], response_model_exclude_unset=True)
async def workers(controller: ControllerDep, address: AddressDep) -> list[dict[str, Any]]:
    """List the machines with their models."""
    return node_entries.models_by_worker(controller, address)


@router.get("/v1/supervisor", response_model=server_schemas.Supervisor)
async def supervisor(address: AddressDep) -> dict[str, str]:
    """The address of the server."""
    return {"supervisor_ip": address}


@router.delete("/v1/clusters", response_model=server_schemas.Result)
async def stop(stop_server: StopDep, key: KeyDep) -> dict[str, bool]:
    """Stop every engine and then the server. The next server restores the deployments."""
    log.info("stop requested by %s", "a request without a key" if key is None else f"the key {key.name}")
    stop_server()
    return {"result": True}
