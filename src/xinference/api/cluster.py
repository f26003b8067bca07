"""The server itself."""

from __future__ import annotations

import os
import time
from typing import Any

from fastapi import APIRouter, Request

from xinference import __version__
from xinference.api.errors import ERROR_RESPONSES
from xinference.api.models import controller_of

router = APIRouter(responses=ERROR_RESPONSES)
STARTED = time.time()


@router.get("/status")
async def status(request: Request) -> dict[str, Any]:
    """Version, process and how long it has been up (seconds)."""
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime": int(time.time() - STARTED),
        "home": str(request.app.state.settings.home),
        "models": len(controller_of(request).deployments()),
    }


@router.get("/v1/cluster/auth")
async def auth() -> dict[str, bool]:
    """Whether a key is needed."""
    return {"auth": False}


@router.get("/v1/cluster/version")
async def version() -> dict[str, str]:
    """The server's version."""
    return {"version": __version__}


@router.delete("/v1/clusters")
async def stop(request: Request) -> dict[str, bool]:
    """End every engine and then this server. The deployments come back with the next server."""
    request.app.state.stop()
    return {"result": True}
