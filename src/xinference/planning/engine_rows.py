"""Which engines run which versions of a family on a host, in the form of the API. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion
from xinference.engines.base import Engine
from xinference.hardware.devices import Host
from xinference.planning.engine_choice import supports

Json = dict[str, Any]


def engine_rows(engines: Iterable[Engine], family: ModelFamily, host: Host) -> list[Json]:
    """One row for each version and engine: whether the engine runs it on the host, or the reason why not."""
    every = list(engines)
    return [row for spec in family.model_specs for engine in every for row in _rows(engine, family, spec, host)]


def engine_entries(engines: Mapping[str, Engine], family: ModelFamily, host: Host) -> Json:
    """Engine -> the specs that it runs on the host, or the reason why it runs none."""
    return {name: _entries(engine, family, host) or _why_not(engine, family, host) for name, engine in engines.items()}


def models_by_ability(engine: Engine, families: Iterable[ModelFamily]) -> dict[str, list[str]]:
    """The language models that an engine supports on any machine, by ability."""
    supported = [family for family in families if any(engine.table.supports(spec) for spec in family.model_specs)]
    return {ability: names_with(supported, ability) for ability in ("chat", "generate")}


def names_with(families: Iterable[ModelFamily], ability: str) -> list[str]:
    """The names of the language models with an ability."""
    return [f.model_name for f in families if f.model_type == "LLM" and ability in f.model_ability]


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
