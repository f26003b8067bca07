"""Routes of newer Xinference versions that this server does not support: each answers 501 and names the alternative."""

from __future__ import annotations

from fastapi import APIRouter

from xinference.error_codes import Code
from xinference.errors import Problem

router = APIRouter(include_in_schema=False)


def _unsupported(cause: str, hint: str) -> Problem:
    return Problem(Code.NOT_HERE, cause, hint=hint)


@router.post("/v1/launch_history")
@router.delete("/v1/launch_history/{model_name}")
@router.delete("/v1/launch_history/{model_name}/{model_uid:path}")
async def written_history() -> None:
    """No client writes the history of launches."""
    raise _unsupported(
        "The history of launches is not written by clients.",
        "`xinference launch` adds a launch, `xinference terminate` ends it.",
    )


@router.delete("/v1/virtualenvs")
async def virtualenvs() -> None:
    """There is one environment for each engine version, not one for each model."""
    raise _unsupported(
        "Models have no virtual environments: all models of an engine share the engine's environment.",
        "`xinference env remove` removes an environment, on the server's machine.",
    )


@router.post("/v1/api/relaunch")
@router.get("/v1/api-relaunches")
@router.get("/v1/api-relaunches/{operation_id}")
@router.post("/v1/supervisor/relaunch")
@router.get("/v1/supervisor-relaunches")
@router.get("/v1/supervisor-relaunches/{operation_id}")
@router.post("/v1/workers/{worker_address}/relaunch")
@router.get("/v1/worker-relaunches")
@router.get("/v1/worker-relaunches/{operation_id}")
async def relaunches() -> None:
    """The server is one program on one machine, which its own commands restart."""
    raise _unsupported(
        "The server has no separate API, supervisor and worker processes that could be relaunched.",
        "`xinference stop` and `xinference serve` restart it; engines that run are taken over.",
    )
