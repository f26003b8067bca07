"""Chooses the version and the engine of a launch request, or refuses it with a list of alternatives. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from xinference.catalog.models import ModelVersion
from xinference.engines.base import Engine, Support
from xinference.error_codes import Code
from xinference.errors import bad_request, near
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest
from xinference.planning.facts import Facts


def choose_version(facts: Facts, request: LaunchRequest) -> tuple[ModelVersion, Engine, str]:
    """The requested version, the engine that will run it, and the reason for the engine.

    Raises:
        Problem: 400, with the name that does not exist or can't run here, and similar choices.
    """
    version = match(facts.families, request)
    if request.model_engine is not None:
        engine = _engine(facts.engines, request.model_engine)
        supported = supports(engine, version)
        if not supported:
            raise bad_request(
                f"{_display_name(version)} can't run on {engine.table.engine}: {supported.reason}.",
                hint=_suitable_engines(facts, version),
                code=Code.ENGINE_UNSUPPORTED,
            )
        available = engine.available(version.spec, facts.host)
        if not available:
            raise bad_request(
                f"{engine.table.engine} can't run {_display_name(version)} here: {available.reason}.",
                hint=_suitable_engines(facts, version, excluded=engine),
                code=Code.ENGINE_UNAVAILABLE,
            )
        return version, engine, "requested"
    for engine in facts.engines.values():
        if supports(engine, version) and engine.available(version.spec, facts.host):
            return version, engine, "the first engine that can run it on this host"
    raise bad_request(
        f"No engine here can run {_display_name(version)}.",
        hint=_suitable_engines(facts, version),
        code=Code.ENGINE_UNAVAILABLE,
    )


def supporting_engine(facts: Facts, version: ModelVersion, name: str) -> Engine:
    """The engine of this name if it supports the version, on this host or another one.

    Raises:
        Problem: 400 ``engine_not_found`` or ``engine_unsupported``.
    """
    engine = _engine(facts.engines, name)
    supported = engine.table.supports(version.spec, version.quantization)
    if not supported:
        raise bad_request(
            f"{_display_name(version)} can't run on {engine.table.engine}: {supported.reason}.",
            hint=_suitable_engines(facts, version),
            code=Code.ENGINE_UNSUPPORTED,
        )
    return engine


def supports(engine: Engine, version: ModelVersion) -> Support:
    """Whether the engine supports the version's type, format and quantization, whatever the host."""
    model_type = version.family.model_type
    if model_type not in engine.table.model_types:
        return Support(f"{engine.table.engine} does not run {model_type} models")
    return engine.table.supports(version.spec, version.quantization)


def _engine(engines: Mapping[str, Engine], requested: str) -> Engine:
    engine = next((e for name, e in engines.items() if name.lower() == requested.strip().lower()), None)
    if engine is not None:
        return engine
    names = near(requested, engines) or list(engines)
    raise bad_request(
        f"There is no engine named {requested!r}.", hint=f"Engines: {', '.join(names)}.", code=Code.ENGINE_NOT_FOUND
    )


def _display_name(version: ModelVersion) -> str:
    return f"{version.family.model_name} {version.size} {version.spec.model_format} {version.quantization}"


def _suitable_engines(facts: Facts, version: ModelVersion, excluded: Engine | None = None) -> str:
    """A sentence on every engine but `excluded` that supports the version."""
    lines = []
    for name, engine in facts.engines.items():
        if engine is excluded or not supports(engine, version):
            continue
        available = engine.available(version.spec, facts.host)
        lines.append(f"{name} can run it" if available else f"{name} supports it, but {available.reason}")
    return f"{'; '.join(lines)}." if lines else "No other engine supports this format and quantization."
