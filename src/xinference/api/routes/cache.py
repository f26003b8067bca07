"""What is in the caches, and downloads without a launch."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from xinference.api import catalog_schemas, schemas
from xinference.api.dependencies import address_of, controller_of, family_of
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.launch_body import Name, Text, whole_size
from xinference.api.responses import EVENT_STREAM, event_stream
from xinference.api.strict import StrictRoute
from xinference.launch.request import LaunchRequest
from xinference.weights import cache

router = APIRouter(prefix="/v1/cache/models", tags=["cache"], route_class=StrictRoute, responses=ERROR_RESPONSES)


class DownloadBody(BaseModel):
    """What to fetch: the fields of a launch that name a version."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: Name
    model_type: Text = "LLM"
    model_engine: Text | None = None
    model_size_in_billions: int | float | Text | None = None
    model_format: Text | None = None
    quantization: Text | None = None
    download_hub: Text | None = None

    def request(self) -> LaunchRequest:
        """The same for the controller."""
        fields = self.model_dump()
        return LaunchRequest(**fields | {"model_size_in_billions": whole_size(self.model_size_in_billions)})


@router.get("", response_model=catalog_schemas.CachedList, responses=problems(404))
async def cached(
    request: Request, model_name: str | None = None, worker_ip: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """What is here, wholly or partly: one entry for each version and hub."""
    controller = controller_of(request)
    found = await asyncio.to_thread(controller.library.cached)
    if model_name:
        wanted = model_name.strip().lower()
        found = [each for each in found if each.version.family.model_name.lower() == wanted]
        if not found:
            family_of(request, model_name)  # a name that nothing has is refused
    return {"list": [each.to_dict() | {"actor_ip_address": address_of(request)} for each in found]}


@router.get("/files", response_model=catalog_schemas.CachedFiles, responses=problems(404))
async def files(request: Request, model_version: str, worker_ip: str | None = None) -> dict[str, Any]:
    """What a removal would delete, and which other versions use the same files."""
    found = await asyncio.to_thread(controller_of(request).library.cached)
    entries = cache.find_version(found, model_version)
    kept = [file for entry in entries for file in entry.files]
    return {
        "model_version": model_version,
        "worker_ip": None,
        "paths": [str(file.path) for file in kept],
        "files": [{"path": str(file.path), "size_bytes": 0 if file.shared else file.size} for file in kept],
        "shared_with": cache.find_sharing(found, entries),
    }


@router.delete("", response_model=catalog_schemas.Removed, responses=problems(404, 409))
async def remove(request: Request, model_version: str, worker_ip: str | None = None) -> dict[str, Any]:
    """Delete a version's files, unless something uses them."""
    return {"result": True, "freed_bytes": await controller_of(request).library.remove(model_version)}


@router.post(
    "", response_model=catalog_schemas.ModelVersionAnswer, responses=problems(404, 409, 413, 502, 503, 504, 507)
)
async def download(request: Request, body: DownloadBody) -> dict[str, str]:
    """Fetch a version without launching it; answers at once, its events tell the rest."""
    return {"model_version": await controller_of(request).library.download(body.request())}


@router.get(
    "/{model_version}/events",
    response_model=list[schemas.Event],
    responses={200: EVENT_STREAM, **problems(404)},
)
async def events(
    request: Request, model_version: str, follow: bool = False
) -> list[dict[str, Any]] | StreamingResponse:
    """What happened in a download; with `follow` as server-sent events until it has ended."""
    downloads = controller_of(request).downloads
    return event_stream(downloads.follow(model_version)) if follow else downloads.kept(model_version)


@router.delete("/{model_version}/download", response_model=None, responses=problems(404))
async def cancel(request: Request, model_version: str) -> None:
    """Stop a download; what came is kept, and the next one goes on from there."""
    await controller_of(request).downloads.cancel(model_version)
