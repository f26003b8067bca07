"""Estimates a model's memory from the registry or from cached weights, without a server."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from xinference.catalog.known_models import registrations_of
from xinference.catalog.models import ModelVersion
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.engines.base import Engine
from xinference.engines.registry import all_engines
from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.hubs.registry import all_hubs
from xinference.launch.match import match
from xinference.launch.model_shape import ModelShape
from xinference.launch.name_tag import without_tag
from xinference.launch.plan import LaunchDraft, ResolvedLaunch
from xinference.launch.request import LaunchRequest
from xinference.planning.gguf_makers import are_early, stored_shape
from xinference.planning.memory import MemoryBudget, MemoryEstimate
from xinference.planning.weights_estimate import estimated_shape
from xinference.weights import shape_reader
from xinference.weights.derivation import derive, requested_reference
from xinference.weights.fetch import cached_path

#: Supported bits of one element of the KV cache.
KV_BITS = (8, 16, 32)
#: Those of a launch without options for the cache. Only such a launch saves the states of prompts.
PLANNED_KV_BITS = 16
#: Tokens of prompt and answer together if no context is named.
USUAL_CONTEXT = 4096
#: Maximum number of tokens of a context: engines store it in 32 bits.
MAX_CONTEXT = 2**31 - 1


@dataclass(frozen=True)
class Estimate:
    """Memory of one request with the whole context on one engine; bytes."""

    version_id: str
    engine: str
    context_length: int
    kv_cache_bits: int
    weights_bytes: int
    kv_cache_bytes: int
    overhead_bytes: int
    """The remaining memory: the program, its compute buffers, CUDA's context."""
    saved_states_bytes: int
    """Maximum size of the saved states of prompts, as a launch plans it."""
    source: str
    """The source of the model's hyperparameters."""
    devices: int
    """Number of GPUs; 0: the CPU."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes + self.saved_states_bytes


def estimate(
    *,
    model_name: str,
    size_in_billions: int | str | None = None,
    model_format: str | None = None,
    quantization: str | None = None,
    context_length: int | None = None,
    kv_cache_bits: int = 16,
    settings: Settings | None = None,
) -> list[Estimate]:
    """One estimate for each engine that runs the version, on the devices that are usual for it.

    Without a size, format and quantization: the version that a launch prefers. `context_length`: tokens of prompt and
    answer together; None: `USUAL_CONTEXT`, or the model's context if it is shorter.

    Raises:
        Problem: 400, which names the unknown value with similar ones, or ``shape_unknown``.
    """
    if context_length is not None and not 1 <= context_length <= MAX_CONTEXT:
        raise bad_request(f"context_length is {context_length}, but must be a number from 1 to {MAX_CONTEXT}.")
    if kv_cache_bits not in KV_BITS:
        raise bad_request(f"kv_cache_dtype is {kv_cache_bits}; use {', '.join(map(str, KV_BITS))} bits.")
    request = LaunchRequest(
        model_name=model_name,
        model_size_in_billions=size_in_billions,
        model_format=model_format.lower() if model_format is not None else None,
        quantization=quantization,
    )
    settings = settings or Settings.from_env()
    version = _version(request, settings)
    shape, source = _shape(version, settings)
    shape = msgspec.structs.replace(shape, kv_bytes_per_token=shape.kv_bytes_per_token * kv_cache_bits // 16)
    engines = [
        engine
        for engine in all_engines().values()
        if version.family.model_type in engine.table.model_types
        and engine.table.supports(version.spec, version.quantization)
    ]
    context = context_length or min(USUAL_CONTEXT, version.family.context_length or USUAL_CONTEXT)
    saves_states = settings.saves_states and kv_cache_bits == PLANNED_KV_BITS
    return [
        _estimate_on(engine, _launch_of(engine, version, request), shape, context, kv_cache_bits, source, saves_states)
        for engine in engines
    ]


def _launch_of(engine: Engine, version: ModelVersion, request: LaunchRequest) -> ResolvedLaunch:
    """The launch that an estimate is about: without options, on the devices that are usual for the engine."""
    on_gpu = engine.memory.usual_devices > 0
    draft = LaunchDraft(request.model_name, request, version, engine.table.engine, on_gpu, threads=1)
    source = next((each for each in version.spec.sources if each.has(version.quantization)), version.spec.sources[0])
    choice = engine.choose_files(source, version, {})
    return ResolvedLaunch(draft, choice.source or source, choice.options)


def _version(request: LaunchRequest, settings: Settings) -> ModelVersion:
    """The version that the request names: a built-in or registered model, or one derived from a path or hub id."""
    registrations = registrations_of(settings.home)
    request = without_tag(request, registrations.families)
    what = requested_reference(request, registrations.families)
    if what is None:
        return match(registrations.families, request)
    derived = derive(
        request, what, list(registrations.families), all_hubs(settings), settings.model_src or None
    ).request
    assert derived.family is not None
    return match({derived.family.model_name: derived.family}, derived)


def _estimate_on(
    engine: Engine,
    launch: ResolvedLaunch,
    shape: ModelShape,
    context_length: int,
    kv_cache_bits: int,
    source: str,
    saves_states: bool,
) -> Estimate:
    model = engine.memory
    estimate = MemoryEstimate(shape, model, MemoryBudget(0, devices=model.usual_devices))
    # The context here is prompt and answer together, the usual definition; that of the planner is the longest prompt.
    prompt = context_length - 1
    sizing = estimate.sizing(prompt, 1, ())
    return Estimate(
        launch.version.version_id,
        engine.table.engine,
        context_length,
        kv_cache_bits,
        sizing.weights_bytes,
        sizing.kv_cache_bytes,
        sizing.overhead_bytes,
        model.state_bytes(launch, sizing) if saves_states else 0,
        source,
        model.usual_devices,
    )


def _shape(version: ModelVersion, settings: Settings) -> tuple[ModelShape, str]:
    """The model's shape: from its weights if they are cached, else from the registry."""
    hubs = all_hubs(settings)
    for source in version.spec.sources:
        path = cached_path(hubs, version, source) if source.has(version.quantization) else None
        if path is not None:
            return shape_reader.read_shape(path, version)[0], str(path)
    facts = stored_shape(version)
    if facts is None:
        raise bad_request(
            f"The registry does not have the layers and heads of {version.family.model_name} {version.size}, and its "
            "weights are not cached.",
            hint=f"`xinference download -n {version.family.model_name} -s {version.size} -f "
            f"{version.spec.model_format} -q {version.quantization}` downloads them; then their own numbers are used.",
            code=Code.SHAPE_UNKNOWN,
        )
    shape = estimated_shape(
        facts,
        version.spec.model_format,
        version.quantization,
        version.family.context_length,
        early=are_early(version),
    )
    described = version.spec.sources[0].hub if version.family.model_name not in builtin_families() else None
    return shape, f"its files on {described}" if described else "the registry"
