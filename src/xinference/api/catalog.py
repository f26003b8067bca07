"""Which engine runs what, and why not."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from xinference.api.errors import ERROR_RESPONSES
from xinference.api.models import controller_of
from xinference.catalog.match import match
from xinference.catalog.models import LaunchRequest, ModelFamily, ModelSpec, ModelVersion
from xinference.engines.base import Engine
from xinference.hardware.devices import Host, read_host
from xinference.planning.plan import supports

router = APIRouter(responses=ERROR_RESPONSES)


@router.get("/v1/engines/{model_name}")
async def engines(
    request: Request, model_name: str, detailed: bool = False
) -> dict[str, list[dict[str, Any]] | str] | list[dict[str, Any]]:
    """Each engine with what it can run of this model here, or why it can't; `detailed`: a row a version and engine."""
    controller = controller_of(request)
    family = match(controller.families, LaunchRequest(model_name=model_name)).family
    host = await asyncio.to_thread(read_host)
    if detailed:
        every = controller.engines.values()
        return [row for spec in family.model_specs for engine in every for row in _rows(engine, family, spec, host)]
    answer: dict[str, list[dict[str, Any]] | str] = {}
    for name, engine in controller.engines.items():
        entries = [
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
        answer[name] = entries or _why_not(engine, family, host)
    return answer


def _rows(engine: Engine, family: ModelFamily, spec: ModelSpec, host: Host) -> list[dict[str, Any]]:
    """Yes, or the reason, for each quantization of a spec."""
    return [
        {
            "model_format": spec.model_format,
            "model_size_in_billions": spec.model_size_in_billions,
            "quantization": quantization,
            "engine": engine.table.engine,
            "ok": reason is None,
            "reason": reason,
        }
        for quantization in spec.quantizations
        for reason in [_reason(engine, family, spec, quantization, host)]
    ]


def _reason(engine: Engine, family: ModelFamily, spec: ModelSpec, quantization: str, host: Host) -> str | None:
    version = ModelVersion(family=family, spec=spec, quantization=quantization)
    return supports(engine, version).reason or engine.available(spec, host).reason


def _why_not(engine: Engine, family: ModelFamily, host: Host) -> str:
    """What stands between an engine and the specs it supports; else why it supports none."""
    if family.model_type not in engine.table.model_types:
        return f"{engine.table.engine} does not run {family.model_type} models"
    supported = [spec for spec in family.model_specs if engine.table.supports(spec)]
    if supported:
        reasons = [engine.available(spec, host).reason for spec in supported]
    else:
        reasons = [engine.table.supports(spec).reason for spec in family.model_specs]
    return "; ".join(dict.fromkeys(str(reason) for reason in reasons))
