"""Downloads of weights under the names of newer clients, and the environments of the engines."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from xinference.api import catalog_schemas
from xinference.api.dependencies import AddressDep, ControllerDep, SettingsDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.config import Settings
from xinference.environments.installed import EnvironmentFolder, InstalledEnvironment
from xinference.error_codes import Code
from xinference.errors import not_found

router = APIRouter(tags=["cache"], route_class=StrictRoute, responses=ERROR_RESPONSES)
Json = dict[str, Any]


@router.get("/v1/downloads", response_model=catalog_schemas.Downloads)
async def downloads(controller: ControllerDep) -> dict[str, list[Json]]:
    """List the downloads that are not complete, and the launches that download"""
    launches = []
    for deployment in controller.deployments():
        progress = controller.progress(deployment.uid)
        if progress["stage"] == "downloading":
            named = {name: deployment.description.get(name) for name in _DESCRIBED}
            launches.append({"kind": "launch", "cache_uid": None, "resumable": False, "error": None} | named | progress)
    return {"list": [*controller.downloads.unfinished(), *launches]}


_DESCRIBED = (
    *("model_uid", "model_name", "model_type", "model_engine", "model_size_in_billions", "model_format"),
    *("quantization", "status", "instance_created_ts"),
)


@router.post("/v1/downloads/{cache_uid}/pause", response_model=None, responses=problems(404))
async def pause(controller: ControllerDep, cache_uid: str) -> None:
    """Stop a download; its incomplete files stay"""
    await controller.downloads.cancel(cache_uid)


@router.post("/v1/downloads/{cache_uid}/resume", response_model=None, responses=problems(404, 409))
async def resume(controller: ControllerDep, cache_uid: str) -> None:
    """Continue a download that was stopped or has failed"""
    controller.downloads.resume(cache_uid)


@router.delete("/v1/downloads/{cache_uid}", response_model=None, responses=problems(404))
async def remove(controller: ControllerDep, cache_uid: str) -> None:
    """Stop a download and remove it from the list; its incomplete files stay in the cache"""
    await controller.downloads.remove(cache_uid)


@router.get("/v1/cache/models/{cache_uid}/progress", response_model=catalog_schemas.Download, responses=problems(404))
async def progress(controller: ControllerDep, cache_uid: str) -> Json:
    """The progress of a download, by bytes"""
    return controller.downloads.entry(cache_uid)


@router.post("/v1/cache/models/{cache_uid}/cancel", response_model=None, responses=problems(404))
async def cancel(controller: ControllerDep, cache_uid: str) -> None:
    """Cancel a download; the next download of the version resumes it"""
    await controller.downloads.cancel(cache_uid)


@router.get("/v1/virtualenvs", response_model=catalog_schemas.Environments)
async def environments(
    settings: SettingsDep,
    address: AddressDep,
    model_name: str | None = None,
    model_engine: str | None = None,
    worker_ip: str | None = None,
) -> dict[str, list[Json]]:
    """List the installed environments: one for each engine and version, which all its models share"""
    installed = await asyncio.to_thread(_installed, settings, model_engine)
    return {"list": [_environment(each) | {"actor_ip_address": address} for each in installed]}


@router.get("/v1/virtualenvs/packages", response_model=catalog_schemas.Packages, responses=problems(404))
async def packages(
    settings: SettingsDep,
    address: AddressDep,
    model_engine: str,
    model_name: str | None = None,
    python_version: str | None = None,
    worker_ip: str | None = None,
) -> Json:
    """List the packages of an engine's environment, as its lock file has them"""
    installed = await asyncio.to_thread(_installed, settings, model_engine)
    fitting = [each for each in installed if python_version in (None, each.lock.recipe.python)]
    if not fitting:
        raise not_found(
            f"There is no installed environment of {model_engine!r:.100}.",
            hint="`xinference env list` shows the environments; `xinference env install` installs one.",
            code=Code.ENVIRONMENT_MISSING,
        )
    newest = fitting[0]
    return {
        "model_name": model_name,
        "model_engine": newest.lock.spec.engine,
        "python_version": newest.lock.recipe.python,
        "worker_ip": address,
        "packages": [
            {"name": name, "version": version, "size_bytes": None}
            for name, version in sorted(newest.lock.packages.items())
        ],
    }


def _installed(settings: Settings, engine: str | None) -> list[InstalledEnvironment]:
    """The installed environments of an engine, or of all."""
    every = EnvironmentFolder(settings.home / "environments").all()
    return [each for each in every if engine is None or each.lock.spec.engine.lower() == engine.strip().lower()]


def _environment(installed: InstalledEnvironment) -> Json:
    return {
        "model_name": None,
        "model_engine": installed.lock.spec.engine,
        "engine_version": installed.lock.spec.version,
        "path": str(installed.folder),
        "real_path": str(installed.folder.resolve()),
        "python_version": installed.lock.recipe.python,
        "size_bytes": installed.marker.size_bytes,
    }
