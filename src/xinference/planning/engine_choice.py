"""The version and the engine of a request, or the near choices. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from xinference.catalog.models import ModelVersion
from xinference.engines.base import Engine, Support
from xinference.errors import bad_request, near
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest
from xinference.planning.facts import Facts


def choose_version(facts: Facts, request: LaunchRequest) -> tuple[ModelVersion, Engine, str]:
    """The version and the engine that will run it, with the reason for the engine.

    Raises:
        Problem: 400, naming what does not exist or can't run here, with the near choices.
    """
    version = match(facts.families, request)
    if request.model_engine is not None:
        engine = _engine(facts.engines, request.model_engine)
        supported = supports(engine, version)
        if not supported:
            raise bad_request(
                f"{_named(version)} can't run on {engine.table.engine}: {supported.reason}.",
                hint=_engines_that_can(facts, version),
                code="engine_unsupported",
            )
        available = engine.available(version.spec, facts.host)
        if not available:
            raise bad_request(
                f"{engine.table.engine} can't run {_named(version)} here: {available.reason}.",
                hint=_engines_that_can(facts, version, besides=engine),
                code="engine_unavailable",
            )
        return version, engine, "asked for"
    for engine in facts.engines.values():
        if supports(engine, version) and engine.available(version.spec, facts.host):
            return version, engine, "the first that can run it here"
    raise bad_request(
        f"No engine here can run {_named(version)}.", hint=_engines_that_can(facts, version), code="engine_unavailable"
    )


def supporting_engine(facts: Facts, version: ModelVersion, wanted: str) -> Engine:
    """The engine named `wanted`, which takes such a version, here or elsewhere.

    Raises:
        Problem: 400 ``engine_not_found`` or ``engine_unsupported``.
    """
    engine = _engine(facts.engines, wanted)
    supported = engine.table.supports(version.spec, version.quantization)
    if not supported:
        raise bad_request(
            f"{_named(version)} can't run on {engine.table.engine}: {supported.reason}.",
            hint=_engines_that_can(facts, version),
            code="engine_unsupported",
        )
    return engine


def supports(engine: Engine, version: ModelVersion) -> Support:
    """Whether the engine takes this version at all: its type, its format and its quantization."""
    model_type = version.family.model_type
    if model_type not in engine.table.model_types:
        return Support(f"{engine.table.engine} does not run {model_type} models")
    return engine.table.supports(version.spec, version.quantization)


def _engine(engines: Mapping[str, Engine], wanted: str) -> Engine:
    found = next((e for name, e in engines.items() if name.lower() == wanted.strip().lower()), None)
    if found is not None:
        return found
    close = near(wanted, engines) or list(engines)
    raise bad_request(
        f"There is no engine named {wanted!r}.", hint=f"There are: {', '.join(close)}.", code="engine_not_found"
    )


def _named(version: ModelVersion) -> str:
    return f"{version.family.model_name} {version.size} {version.spec.model_format} {version.quantization}"


def _engines_that_can(facts: Facts, version: ModelVersion, besides: Engine | None = None) -> str:
    lines = []
    for name, engine in facts.engines.items():
        if engine is besides or not supports(engine, version):
            continue
        available = engine.available(version.spec, facts.host)
        lines.append(f"{name} can run it" if available else f"{name} could, but {available.reason}")
    return f"{'; '.join(lines)}." if lines else "No other engine takes this format and quantization."
