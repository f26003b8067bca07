"""Cached weights: listing, removing, and downloading without a launch."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from xinference.api import catalog_schemas, schemas
from xinference.api.dependencies import AddressDep, ControllerDep, find_family
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.launch_body import Name, Text
from xinference.api.responses import EVENT_STREAM, event_stream
from xinference.api.strict import StrictRoute
from xinference.launch.model_size import whole_size
from xinference.launch.request import LaunchRequest
from xinference.weights import cache

router = APIRouter(prefix="/v1/cache/models", tags=["cache"], route_class=StrictRoute, responses=ERROR_RESPONSES)


class DownloadBody(BaseModel):
    """The version to download: the fields of a launch that choose a version."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: Name
    model_type: Text = "LLM"
    model_engine: Text | None = None
    model_size_in_billions: int | float | Text | None = None
    model_format: Text | None = None
    quantization: Text | None = None
    download_hub: Text | None = None

    def request(self) -> LaunchRequest:
        """The request for the controller."""
        fields = self.model_dump()
        return LaunchRequest(**fields | {"model_size_in_billions": whole_size(self.model_size_in_billions)})


@router.get("", response_model=catalog_schemas.CachedList, responses=problems(404))
async def cached(
    controller: ControllerDep, address: AddressDep, model_name: str | None = None, worker_ip: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """List cached weights, complete and partial: one entry for each version and hub."""
    entries = await controller.weights.cached()
    if model_name:
        name = model_name.strip().lower()
        entries = [each for each in entries if each.version.family.model_name.lower() == name]
        if not entries:
            find_family(controller.families, model_name)  # an unknown name is refused
    return {"list": [each.to_dict() | {"actor_ip_address": address} for each in entries]}


@router.get("/files", response_model=catalog_schemas.CachedFiles, responses=problems(404))
async def files(controller: ControllerDep, model_version: str, worker_ip: str | None = None) -> dict[str, Any]:
    """List the files that a removal would delete, and the versions and running models that use them."""
    every = await controller.weights.cached()
    entries = cache.find_version(every, model_version)
    cached_files = [file for entry in entries for file in entry.files]
    return {
        "model_version": model_version,
        "worker_ip": None,
        "paths": [str(file.path) for file in cached_files],
        "files": [{"path": str(file.path), "size_bytes": 0 if file.shared else file.size} for file in cached_files],
        "shared_with": cache.find_sharing(every, entries),
        "used_by": await controller.weights.users(every, entries),
    }


@router.delete("", response_model=catalog_schemas.Removed, responses=problems(404, 409))
async def remove(controller: ControllerDep, model_version: str, worker_ip: str | None = None) -> dict[str, Any]:
    """Delete the files of a version that is not in use."""
    return {"result": True, "freed_bytes": await controller.weights.remove(model_version)}


@router.post(
    "", response_model=catalog_schemas.ModelVersionAnswer, responses=problems(404, 409, 413, 502, 503, 504, 507)
)
async def download(controller: ControllerDep, body: DownloadBody) -> dict[str, str]:
    """Start to download a version without launching it; its events report the progress."""
    return {"model_version": await controller.weights.download(body.request())}


@router.get(
    "/{model_version}/events",
    response_model=list[schemas.Event],
    responses={200: EVENT_STREAM, **problems(404)},
)
async def events(
    controller: ControllerDep, model_version: str, follow: bool = False
) -> list[dict[str, Any]] | StreamingResponse:
    """List the events of a download; with `follow` stream them until it ends."""
    downloads = controller.downloads
    return event_stream(downloads.follow(model_version)) if follow else downloads.events(model_version)


@router.delete("/{model_version}/download", response_model=None, responses=problems(404))
async def cancel(controller: ControllerDep, model_version: str) -> None:
    """Cancel a download; the next download of the version resumes it."""
    await controller.downloads.cancel(model_version)
