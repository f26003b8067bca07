"""What newer versions of Xinference have routes for and is done in another way here: the answer says which."""

from __future__ import annotations

from fastapi import APIRouter

from xinference.errors import Problem

router = APIRouter(include_in_schema=False)


@router.get("/v1/autostart/models")
@router.get("/v1/autostart/models/summary")
@router.post("/v1/autostart/models")
@router.delete("/v1/autostart/models/{model_uid:path}")
async def autostart() -> None:
    """There is no list beside the deployments."""
    raise Problem(
        "not_here",
        501,
        "There is no list of models to start with the server: every model that was launched comes back by itself.",
        hint="`xinference launch` puts a model on, `xinference terminate` takes it off again.",
    )


@router.get("/v1/launch_history")
async def launch_history() -> None:
    """Events are kept with the deployment."""
    raise Problem(
        "not_here",
        501,
        "There is no history of launches.",
        hint="GET /v1/models/{model_uid}/events tells what happened to a model that there is.",
    )


@router.get("/v1/virtualenvs")
@router.delete("/v1/virtualenvs")
async def virtualenvs() -> None:
    """One environment an engine and version, not one a model."""
    raise Problem(
        "not_here",
        501,
        "Models have no virtual environments of their own: each engine has one, whichever models it runs.",
        hint="`xinference env list` shows them, on the server's machine.",
    )
