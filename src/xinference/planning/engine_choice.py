"""Chooses the version and the engine of a launch request, or refuses it with a list of alternatives. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from xinference.catalog.models import ModelVersion, written_size
from xinference.engines.base import Engine
from xinference.engines.support import Support
from xinference.environments.environments import EnvironmentEntry
from xinference.error_codes import Code
from xinference.errors import bad_request, join_names, near
from xinference.launch.match import matches
from xinference.launch.request import LaunchRequest
from xinference.planning.facts import Facts
from xinference.planning.version_reasons import size_reason, version_reasons
from xinference.planning.version_size import estimated_bytes, usable_bytes
from xinference.units import GIB

Pair = tuple[ModelVersion, Engine]


@dataclass(frozen=True)
class VersionChoice:
    """The version and the engine of a launch, with the reasons for what the request leaves open."""

    version: ModelVersion
    engine: Engine
    engine_reason: str
    choices: tuple[str, ...] = ()
    """One line for each of size and quantization that the request does not name."""
    reasons: tuple[str, ...] = ()
    """`choices`, and the reason for the format."""


def choose_version(facts: Facts, request: LaunchRequest) -> VersionChoice:
    """The first version, in the order of `matches`, that an engine can run on this host, and that engine.

    Only the fields that the request names are fixed. Of the quantizations of that version's size and format,
    the first whose weights fit in the machine's memory is chosen.

    Raises:
        Problem: 400, with the name that does not exist or can't run here, and similar choices.
    """
    versions = matches(facts.families, request)
    engines = _candidates(facts, request)
    first = next(_runnable(facts, versions, engines), None)
    if first is None:
        raise _refusal(facts, request, versions, engines)
    kind = (first[0].size, first[0].spec.model_format)
    of_kind = [version for version in versions if (version.size, version.spec.model_format) == kind]
    version, engine = next((pair for pair in _runnable(facts, of_kind, engines) if _fits(facts, request, pair)), first)
    preferred = _size_text(facts, request, first) if version is not first[0] else None
    possible = [each for each in versions if any(supports(every, each) for every in engines)]
    size, other = size_reason(request, version, possible), version_reasons(request, version, possible, preferred)
    return VersionChoice(
        version,
        engine,
        _engine_reason(facts, request, version, engine),
        choices=(*size, *other.quantization),
        reasons=(*size, *other.format, *other.quantization),
    )


def version_to_download(facts: Facts, request: LaunchRequest) -> ModelVersion:
    """The version that a launch of this request would run here; if none can, one that may run on another host.

    Raises:
        Problem: 400 ``engine_not_found`` or ``engine_unsupported``.
    """
    versions = matches(facts.families, request)
    if any(_runnable(facts, versions, _candidates(facts, request))):
        return choose_version(facts, request).version
    if request.model_engine is None:
        return versions[0]
    engine = named_engine(facts.engines, request.model_engine)
    supported = next((version for version in versions if supports(engine, version)), None)
    if supported is None:
        raise _refusal(facts, request, versions, (engine,))
    return supported


def supports(engine: Engine, version: ModelVersion) -> Support:
    """Whether the engine supports the version's type, format and quantization, whatever the host."""
    model_type = version.family.model_type
    if model_type not in engine.table.model_types:
        return Support(f"{engine.table.engine} does not run {model_type} models")
    return engine.reads(version.family) and engine.table.supports(version.spec, version.quantization)


def wants_gpu(facts: Facts, request: LaunchRequest) -> bool:
    """Whether a launch uses GPUs; `gpu_idx` overrides `n_gpu`, and a device in MIG mode can't be used as a whole."""
    usable = any(not gpu.mig for gpu in facts.host.gpus)
    return request.gpu_idx is not None or (usable and request.n_gpu is not None)


# -- candidates -------------------------------------------------------------------------------------------------


def _candidates(facts: Facts, request: LaunchRequest) -> tuple[Engine, ...]:
    """The requested engine, or all engines in the order of preference.

    With a GPU this is the order of the registry, which has the fastest first. Without one the engines differ less: one
    whose environment is installed is preferred, and then the one with the smallest download.
    """
    if request.model_engine is not None:
        return (named_engine(facts.engines, request.model_engine),)
    engines = tuple(engine for engine in facts.engines.values() if _loads_adapters(engine, request))
    if wants_gpu(facts, request):
        return engines
    return tuple(sorted(engines, key=lambda engine: _bytes_to_install(facts, engine)))


def _loads_adapters(engine: Engine, request: LaunchRequest) -> bool:
    """Whether the engine loads the adapters of the request. A request with a format has that format's reasons."""
    return engine.table.loads_adapters or request.model_format is not None or not request.options.get("lora_modules")


def _bytes_to_install(facts: Facts, engine: Engine) -> int:
    environment = missing_environment(facts, engine)
    return environment.size_bytes if environment else 0


def missing_environment(facts: Facts, engine: Engine) -> EnvironmentEntry | None:
    """The environment that a launch on this engine installs first; None: nothing is missing."""
    environment = facts.environments.get(engine.table.engine)
    return environment if environment and environment.python is None else None


def _runnable(facts: Facts, versions: Sequence[ModelVersion], engines: Sequence[Engine]) -> Iterator[Pair]:
    for version in versions:
        for engine in engines:
            if supports(engine, version) and engine.available(version.spec, facts.host):
                yield version, engine


def _fits(facts: Facts, request: LaunchRequest, pair: Pair) -> bool:
    version, engine = pair
    size = estimated_bytes(version)
    return size is None or size <= usable_bytes(facts.host, engine.memory, use_gpu=wants_gpu(facts, request))


def named_engine(engines: Mapping[str, Engine], requested: str) -> Engine:
    """The engine that a user has named."""
    engine = next((each for each in engines.values() if each.table.has_name(requested)), None)
    if engine is not None:
        return engine
    similar = near(requested, engines)
    meant = f"Did you mean {join_names(similar)}? " if similar else ""
    raise bad_request(
        f"There is no engine named {requested!r}.",
        hint=f"{meant}The engines are {', '.join(engines)}.",
        code=Code.ENGINE_NOT_FOUND,
    )


# -- words ------------------------------------------------------------------------------------------------------


def _engine_reason(facts: Facts, request: LaunchRequest, version: ModelVersion, engine: Engine) -> str:
    if request.model_engine is not None:
        return "requested"
    others = [e for e in _candidates(facts, request) if e is not engine and any(_runnable(facts, [version], [e]))]
    able = f"that can run it{_adapters_text(request)} on this host"
    if not others:
        return f"the only engine {able}"
    if wants_gpu(facts, request):
        return f"the first engine {able}"
    if missing_environment(facts, engine) is None:
        missing = all(missing_environment(facts, other) for other in others)
        return "its environment is installed" if missing else f"the first engine {able}"
    return f"its environment is the smallest of the engines {able}"


def _adapters_text(request: LaunchRequest) -> str:
    return " with LoRA adapters" if request.options.get("lora_modules") else ""


def _size_text(facts: Facts, request: LaunchRequest, pair: Pair) -> str:
    version, engine = pair
    memory = usable_bytes(facts.host, engine.memory, use_gpu=wants_gpu(facts, request))
    size = (estimated_bytes(version) or 0) / GIB
    return f"{version.quantization} ({size:.1f} GiB) does not fit in {memory / GIB:.1f} GiB"


def _refusal(
    facts: Facts, request: LaunchRequest, versions: Sequence[ModelVersion], engines: Sequence[Engine]
) -> Exception:
    """The refusal of a request that no combination satisfies, with those that come nearest."""
    name = _requested_name(request, versions[0])
    if request.model_engine is None:
        name += _adapters_text(request)
        reason = _unsupported_everywhere(engines, versions)
        if reason is None:
            hint = _suitable_engines(facts, versions)
            return bad_request(f"No engine here can run {name}.", hint=hint, code=Code.ENGINE_UNAVAILABLE)
        found = (_other_version(facts, request, engine) for engine in engines)
        hint = next((text.strip() for text in found if text), "No other engine supports this format and quantization.")
        return bad_request(f"No engine here can run {name}: {reason}.", hint=hint, code=Code.ENGINE_UNAVAILABLE)
    [engine] = engines
    title = engine.table.engine
    supported = next((version for version in versions if supports(engine, version)), None)
    if supported is None:
        cause, code = f"{name} can't run on {title}: {supports(engine, versions[0]).reason}.", Code.ENGINE_UNSUPPORTED
    else:
        reason = engine.available(supported.spec, facts.host).reason
        cause, code = f"{title} can't run {name} here: {reason}.", Code.ENGINE_UNAVAILABLE
    hint = _suitable_engines(facts, versions, excluded=engine) + _other_version(facts, request, engine)
    return bad_request(cause, hint=hint, code=code)


def _unsupported_everywhere(engines: Sequence[Engine], versions: Sequence[ModelVersion]) -> str | None:
    """The reason why no engine supports the first version, on any host; None: one supports some version."""
    if any(supports(engine, version) for engine in engines for version in versions):
        return None
    version = versions[0]
    suitable = [engine for engine in engines if version.family.model_type in engine.table.model_types]
    return next((supports(engine, version).reason for engine in suitable), None)


def _other_version(facts: Facts, request: LaunchRequest, engine: Engine) -> str:
    """A sentence with the flags of a version that the engine can run here; empty if there is none."""
    if request.model_format is None and request.quantization is None:
        return ""
    open_request = msgspec.structs.replace(request, model_format=None, quantization=None)
    found = next(_runnable(facts, matches(facts.families, open_request), [engine]), None)
    if found is None:
        return ""
    version = found[0]
    flags = f"--model-format {version.spec.model_format} --quantization {version.quantization}"
    return f" {engine.table.engine} can run it with {flags}."


def _suitable_engines(facts: Facts, versions: Sequence[ModelVersion], excluded: Engine | None = None) -> str:
    """A sentence on every engine but `excluded` that supports one of the versions."""
    lines = []
    for name, engine in facts.engines.items():
        supported = [version for version in versions if supports(engine, version)]
        if engine is excluded or not supported:
            continue
        if any(_runnable(facts, supported, [engine])):
            lines.append(f"{name} can run it")
        else:
            lines.append(f"{name} supports it, but {engine.available(supported[0].spec, facts.host).reason}")
    return f"{'; '.join(lines)}." if lines else "No other engine supports this format and quantization."


def _requested_name(request: LaunchRequest, version: ModelVersion) -> str:
    """The model's name with the fields that the request names."""
    size = request.model_size_in_billions
    parts = (None if size is None else written_size(size), request.model_format, request.quantization)
    return " ".join([version.family.model_name, *(part for part in parts if part is not None)])
