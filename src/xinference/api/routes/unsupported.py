"""Routes of newer Xinference versions that this server does not support: each answers 501 and names the alternative."""

from __future__ import annotations

from fastapi import APIRouter

from xinference.error_codes import Code
from xinference.errors import Problem

router = APIRouter(include_in_schema=False)


def _unsupported(cause: str, hint: str) -> Problem:
    return Problem(Code.NOT_HERE, cause, hint=hint)


@router.get("/v1/autostart/models")
@router.get("/v1/autostart/models/summary")
@router.post("/v1/autostart/models")
@router.delete("/v1/autostart/models/{model_uid:path}")
async def autostart() -> None:
    """Every deployment is restored at the next start, so there is no separate list."""
    raise _unsupported(
        "There is no autostart list: every launched model is restored when the server starts.",
        "`xinference launch` adds a model, `xinference terminate` removes it.",
    )


@router.get("/v1/requests/{request_id}/progress")
async def request_progress(request_id: str) -> None:
    """Only image generation reports the progress of a request, and image models are not served."""
    raise _unsupported(
        f"Request {request_id} has no progress: only image models report it, and they are not served.",
        "GET /v1/models/{model_uid}/progress has the progress of a launch; stream a completion to follow it.",
    )


@router.get("/v1/launch_history")
async def launch_history() -> None:
    """Not supported: the events of a deployment are deleted with the deployment."""
    raise _unsupported(
        "There is no launch history.",
        "GET /v1/models/{model_uid}/events lists the events of one deployment.",
    )


@router.get("/v1/virtualenvs")
@router.delete("/v1/virtualenvs")
async def virtualenvs() -> None:
    """There is one environment for each engine version, not one for each model."""
    raise _unsupported(
        "Models have no virtual environments: all models of an engine share the engine's environment.",
        "`xinference env list` shows the environments, on the server's machine.",
    )
