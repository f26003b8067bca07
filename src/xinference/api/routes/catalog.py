"""The catalog: engines that run a model, versions, families and prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter

from xinference.api import catalog_schemas
from xinference.api.dependencies import ControllerDep, KeyDep, find_family, visible_families
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion
from xinference.catalog.registrations import MODEL_TYPES
from xinference.control.controller import Controller
from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host, read_host
from xinference.keys.key import Key
from xinference.keys.visibility import manages
from xinference.planning.engine_choice import supports
from xinference.weights.cache import versions_of
from xinference.weights.reference import reference

Json = dict[str, Any]
#: First path segments that are model types, served or not; any other one is the owner of a repository.
_TYPES = (*(each.lower() for each in MODEL_TYPES), "image", "audio", "video", "flexible")
#: Older clients have a path for one engine; it is named only here.
_VLLM_PATH, _VLLM = "/v1/models/vllm-supported", "vLLM"
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
    every = controller.engines
    host = await asyncio.to_thread(read_host)
    if detailed:
        specs = family.model_specs
        return [row for spec in specs for engine in every.values() for row in _rows(engine, family, spec, host)]
    return {name: _entries(engine, family, host) or _why_not(engine, family, host) for name, engine in every.items()}


def _entries(engine: Engine, family: ModelFamily, host: Host) -> list[Json]:
    """The specs of a family that an engine runs on this machine."""
    return [
        {
            "model_name": family.model_name,
            "model_format": spec.model_format,
            "model_size_in_billions": spec.model_size_in_billions,
            "quantizations": [q for q in spec.quantizations if engine.table.supports(spec, q)],
        }
        for spec in family.model_specs
        if family.model_type in engine.table.model_types
        and engine.table.supports(spec)
        and engine.available(spec, host)
    ]


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
    return {ability: _names_of(visible, ability) for ability in ("chat", "generate", "tools")}


@router.get(_VLLM_PATH, response_model=catalog_schemas.VllmModels)
async def vllm_models(controller: ControllerDep, key: KeyDep) -> dict[str, list[str]]:
    """List the language models that vLLM supports, on this machine or another."""
    table, visible = controller.engines[_VLLM].table, visible_families(controller, key)
    supported = [f for f in visible.values() if any(table.supports(spec) for spec in f.model_specs)]
    return {ability: _names_of(supported, ability) for ability in ("chat", "generate")}


def _names_of(families: Iterable[ModelFamily], ability: str) -> list[str]:
    return [f.model_name for f in families if f.model_type == "LLM" and ability in f.model_ability]


def _rows(engine: Engine, family: ModelFamily, spec: ModelSpec, host: Host) -> list[Json]:
    """One row for each quantization of a spec: whether an engine runs it, or the reason why not."""
    rows = []
    for quantization in spec.quantizations:
        reason = _reason(engine, family, spec, quantization, host)
        row = {
            "model_format": spec.model_format,
            "model_size_in_billions": spec.model_size_in_billions,
            "quantization": quantization,
            "engine": engine.table.engine,
            "ok": reason is None,
            "reason": reason,
        }
        rows.append(row)
    return rows


def _reason(engine: Engine, family: ModelFamily, spec: ModelSpec, quantization: str, host: Host) -> str | None:
    version = ModelVersion(family=family, spec=spec, quantization=quantization)
    return supports(engine, version).reason or engine.available(spec, host).reason


def _why_not(engine: Engine, family: ModelFamily, host: Host) -> str:
    """The reason why an engine runs no version of a family: none is supported, or the supported ones can't run here."""
    if family.model_type not in engine.table.model_types:
        return f"{engine.table.engine} does not run {family.model_type} models"
    supported = [spec for spec in family.model_specs if engine.table.supports(spec)]
    if supported:
        reasons = [engine.available(spec, host).reason for spec in supported]
    else:
        reasons = [engine.table.supports(spec).reason for spec in family.model_specs]
    return "; ".join(dict.fromkeys(str(reason) for reason in reasons))
