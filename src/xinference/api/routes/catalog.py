"""The catalog: engines that run a model, versions, families and prompts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from xinference.api import catalog_schemas
from xinference.api.dependencies import ControllerDep, KeyDep, find_family, visible_families
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.catalog.models import ModelFamily
from xinference.catalog.registrations import MODEL_TYPES
from xinference.control.controller import Controller
from xinference.engines.listing import Listing
from xinference.engines.listings import LISTINGS
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.keys.key import Key
from xinference.keys.visibility import manages
from xinference.planning.engine_rows import engine_entries, engine_rows, models_by_ability, names_with
from xinference.weights.cache import versions_of
from xinference.weights.reference import reference

Json = dict[str, Any]
#: First path segments that are model types, served or not; any other one is the owner of a repository.
_TYPES = (*(each.lower() for each in MODEL_TYPES), "image", "audio", "video", "flexible")
router = APIRouter(tags=["catalog"], route_class=StrictRoute, responses=ERROR_RESPONSES)


@router.get(
    "/v1/engines/{model_name}",
    response_model=catalog_schemas.Engines | list[catalog_schemas.EngineRow],
    responses=problems(404, 409, 502, 503, 504),
)
async def engines(
    controller: ControllerDep,
    key: KeyDep,
    model_name: str,
    detailed: bool = False,
    enable_virtual_env: bool | None = None,
) -> Json | list[Json]:
    """List the engines with the versions of a model that each runs here, or why not; `detailed`: one row for each.

    `enable_virtual_env` has no effect: every engine has its own environment.
    """
    return await _engines(controller, await _family_of(controller, key, model_name), detailed=detailed)


@router.get(
    "/v1/engines/{model_type}/{model_name}",
    response_model=catalog_schemas.Engines | list[catalog_schemas.EngineRow],
    responses=problems(404, 409, 502, 503, 504),
)
async def engines_of_type(
    controller: ControllerDep,
    key: KeyDep,
    model_type: str,
    model_name: str,
    detailed: bool = False,
    enable_virtual_env: bool | None = None,
) -> Json | list[Json]:
    """List the engines that run a model of one type, or a repository of a hub (owner and name)."""
    if model_type.lower() not in _TYPES:
        family = await _family_of(controller, key, f"{model_type}/{model_name}")
    else:
        family = find_family(visible_families(controller, key), model_name, model_type)
    return await _engines(controller, family, detailed=detailed)


@router.get("/v1/engines/{path:path}", include_in_schema=False)
async def engines_of_files(
    controller: ControllerDep, key: KeyDep, path: str, detailed: bool = False
) -> Json | list[Json]:
    """List the engines that run the weights at a path, or a file of a repository."""
    return await _engines(controller, await _family_of(controller, key, path), detailed=detailed)


async def _family_of(controller: Controller, key: Key | None, name: str) -> ModelFamily:
    """The family of a model name, a path or a repository id."""
    if reference(name) is None:
        return find_family(visible_families(controller, key), name)
    if not manages(key):
        raise Problem(
            Code.PERMISSION_DENIED,
            "Not enough permissions: reading files and repositories requires the scope `manage`.",
            hint="Use the name of a model.",
        )
    return await controller.planner.family(name)


async def _engines(controller: Controller, family: ModelFamily, *, detailed: bool) -> Json | list[Json]:
    host = await controller.node.host()
    if detailed:
        return engine_rows(controller.engines.values(), family, host)
    return engine_entries(controller.engines, family, host)


@router.get(
    "/v1/models/{model_type}/{model_name}/versions",
    response_model=list[catalog_schemas.Version],
    responses=problems(404),
)
async def versions(controller: ControllerDep, key: KeyDep, model_type: str, model_name: str) -> list[Json]:
    """List the versions of a model, and for `manage` the path of the weights where they are cached."""
    family = find_family(visible_families(controller, key), model_name, model_type)
    entries = await controller.weights.cached([family])
    paths = {entry.version.version_id: str(entry.path) for entry in entries if entry.complete}
    return [
        {
            "model_version": version.version_id,
            "model_file_location": paths.get(version.version_id) if manages(key) else None,
            "cache_status": version.version_id in paths,
            "quantization": version.quantization,
            "model_format": version.spec.model_format,
            "model_size_in_billions": version.spec.model_size_in_billions,
        }
        for version in versions_of([family])
    ]


@router.get("/v1/models/prompts", response_model=dict[str, catalog_schemas.PromptStyle])
async def prompts(controller: ControllerDep, key: KeyDep) -> dict[str, Json]:
    """List the chat templates of the families that do not use the template of their weight files."""
    return {
        family.model_name: {
            "chat_template": family.chat_template,
            "stop": list(family.stop),
            "stop_token_ids": list(family.stop_token_ids),
        }
        for family in visible_families(controller, key).values()
        if family.chat_template is not None
    }


@router.get("/v1/models/families", response_model=catalog_schemas.Abilities)
async def families(controller: ControllerDep, key: KeyDep) -> dict[str, list[str]]:
    """List the language models by ability."""
    visible = visible_families(controller, key).values()
    return {ability: names_with(visible, ability) for ability in ("chat", "generate", "tools")}


def _add_listing(listing: Listing) -> None:
    """Add the route of an engine's list of models."""

    async def engine_models(controller: ControllerDep, key: KeyDep) -> dict[str, list[str]]:
        return models_by_ability(controller.engines[listing.engine], visible_families(controller, key).values())

    router.add_api_route(
        listing.path,
        engine_models,
        response_model=catalog_schemas.EngineModels,
        name=listing.method,
        description=f"List the language models that {listing.engine} supports, on this machine or another.",
    )


for each in LISTINGS:
    _add_listing(each)
