"""Finds requests that would fit instead of a refused one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from xinference.catalog.models import ModelSpec, ModelVersion, billions, same_size, written_size
from xinference.engines.base import Engine
from xinference.errors import Problem, Suggestion
from xinference.hardware.devices import Host
from xinference.launch.command_line import launch_command
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.engine_choice import supports
from xinference.planning.eviction import Bytes, format_size
from xinference.planning.gguf_makers import stored_shape
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.sizing import size_launch
from xinference.planning.weights_estimate import registry_shape, rough_bits, rough_shape

#: Contexts that are suggested, in tokens: the largest one that fits.
_CONTEXTS = (131072, 65536, 32768, 16384, 8192, 4096, 2048, 1024, 512)
#: Names of the options for context and slots in other programs and versions.
_OTHER_NAMES = frozenset({"context_length", "ctx_size", "parallel", "n_ctx", "max_model_len", "max_num_seqs"})
#: The plans here are only compared, never started.
_NO_PATH = Path()
#: The quantization that is tried first on another engine.
_USUAL_QUANTIZATION = "q4_k_m"


@dataclass(frozen=True)
class Refused:
    """A launch that does not fit, and the input of its plan."""

    launch: ResolvedLaunch
    request: LaunchRequest
    """The request of the user: a field that the user did not name is None."""
    shape: ModelShape
    host: Host
    engines: Mapping[str, Engine]
    occupancy_without: Callable[[Collection[str]], Occupancy]
    """The memory of the other models after these are unloaded."""
    reserved: Mapping[str, Bytes]
    """Uid of each model with reserved memory -> bytes of each device."""
    fits_disk: Callable[[int], bool] = lambda size: True
    """Whether weights of this many bytes fit on the disk of the cache."""

    @property
    def version(self) -> ModelVersion:
        return self.launch.version

    @property
    def engine(self) -> Engine:
        return self.engines[self.launch.engine]


def alternatives(refused: Refused) -> tuple[Suggestion, ...]:
    """Requests that would fit now, at most one for each kind of change, each as a command line."""
    found = (
        _smaller_context(refused),
        _smaller_quantization(refused),
        _smaller_size(refused),
        _other_engine(refused),
        _unload(refused),
    )
    suggestions = tuple(suggestion for suggestion in found if suggestion is not None)
    if suggestions or (last := _smaller_size_elsewhere(refused)) is None:
        return suggestions
    return (last,)


def smaller_downloads(refused: Refused) -> tuple[Suggestion, ...]:
    """Versions of the same family that fit on the disk and in the memory."""
    found = (_smaller_quantization(refused), _smaller_size(refused))
    return tuple(suggestion for suggestion in found if suggestion is not None)


def _smaller_context(refused: Refused) -> Suggestion | None:
    """A smaller context, or one slot; None if the request names neither: then the plan has tried them already."""
    model, options = refused.engine.memory, refused.launch.options
    slots, requested = options.get(model.slots_option), options.get(model.context_option)
    if not slots and not requested:
        return None
    limit = int(requested or refused.version.family.context_length)
    for count in dict.fromkeys((slots, 1)):
        for context in dict.fromkeys(min(context, limit) for context in _CONTEXTS):
            changes = {model.context_option: context} | ({model.slots_option: count} if count else {})
            plan = _fit(refused, options={**options, **changes})
            if plan is not None:
                slot_text = f" in {count} slot{'s' if count > 1 else ''}" if count else ""
                command = launch_command(
                    refused.request, refused.version, options=_changed_options(refused.request.options, changes)
                )
                return Suggestion("context", f"A context of {context} tokens{slot_text}, {_need(plan)}", command)
    return None


def _changed_options(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in options.items() if name.replace("-", "_") not in _OTHER_NAMES}
    return {**kept, **changes}


def _smaller_quantization(refused: Refused) -> Suggestion | None:
    request, spec = refused.request, refused.version.spec
    names_a_file = (request.asked_name or "").lower().endswith(".gguf")
    if names_a_file or (request.asked_name is None and request.model_path is not None):
        return None
    formats = {spec.model_format} | ({"ggufv2"} if _is_outdated(refused, spec) else set())
    same = (s for s in _same_size(refused) if s.model_format in formats)
    smaller = [version for version in _versions(refused, same) if _order(refused, version) < _order(refused)]
    for version in sorted(smaller, key=lambda each: (_is_outdated(refused, each.spec), -_order(refused, each))):
        if found := _as_suggestion(refused, version, "quantization", f"Quantization {version.quantization}"):
            return found
    return None


def _smaller_size(refused: Refused) -> Suggestion | None:
    if refused.request.asked_name is not None or refused.request.model_path is not None:
        return None
    spec = refused.version.spec
    own, bits = billions(spec.model_size_in_billions), rough_bits(spec.model_format, refused.version.quantization)
    smaller = (s for s in refused.version.family.model_specs if billions(s.model_size_in_billions) < own)

    def distance(version: ModelVersion) -> tuple[float, bool, bool, float]:
        size, model_format = billions(version.spec.model_size_in_billions), version.spec.model_format
        return (
            -size,
            _is_outdated(refused, version.spec),
            model_format != spec.model_format,
            abs(rough_bits(model_format, version.quantization) - bits),
        )

    for version in sorted(_versions(refused, smaller), key=distance):
        size = str(version.spec.model_size_in_billions).replace("_", ".")
        if found := _as_suggestion(refused, version, "size", f"Size {size}B in {version.quantization}"):
            return found
    return None


def _is_outdated(refused: Refused, spec: ModelSpec) -> bool:
    """Whether the files must be converted first, and the user did not name their format."""
    return spec.model_format == "ggmlv3" and refused.request.model_format is None


def _smaller_size_elsewhere(refused: Refused) -> Suggestion | None:
    """The largest smaller size that fits on another engine, where no single change is enough."""
    if refused.request.asked_name is not None or refused.request.model_path is not None:
        return None
    own = billions(refused.version.spec.model_size_in_billions)
    smaller = {
        size: billions(size)
        for spec in refused.version.family.model_specs
        if billions(size := spec.model_size_in_billions) < own
    }
    for size in sorted(smaller, key=lambda size: -smaller[size]):
        specs = [s for s in refused.version.family.model_specs if same_size(s.model_size_in_billions, size)]
        if found := _on_another_engine(refused, specs, f"Size {written_size(size)} on "):
            return found
    return None


def _other_engine(refused: Refused) -> Suggestion | None:
    request = refused.request
    if request.asked_name is not None or request.model_path is not None:
        return None
    return _on_another_engine(refused, _same_size(refused), "The engine ")


def _on_another_engine(refused: Refused, specs: Iterable[ModelSpec], beginning: str) -> Suggestion | None:
    """A version of these specs that another engine can run."""
    request = refused.request
    ordered = sorted(
        _versions(refused, specs),
        key=lambda version: (version.quantization.lower() != _USUAL_QUANTIZATION, -_order(refused, version)),
    )
    own = msgspec.structs.replace(request, options={})  # the options of one engine are not those of another one
    for name, engine in refused.engines.items():
        if name == refused.launch.engine:
            continue
        for version in ordered:
            plan = _fit(refused, version, engine=name, options={}) if _can_run(refused, engine, version) else None
            if plan is not None:
                what = f"{beginning}{name} with {version.spec.model_format} {version.quantization}"
                return Suggestion("engine", f"{what}, {_need(plan)}", launch_command(own, version, engine=name))
    return None


def _unload(refused: Refused) -> Suggestion | None:
    """The smallest model whose memory suffices, or else as many as suffice, the largest first."""
    for uids in unload_groups(refused.reserved):
        if _fit(refused, unloaded=uids) is None:
            continue
        held = sum(sum(refused.reserved[uid].values()) for uid in uids)
        names = " and ".join(uids)
        commands = [f"xinference terminate --model-uid {uid}" for uid in uids]
        return Suggestion(
            "unload",
            f"Without {names}, which {'holds' if len(uids) == 1 else 'hold'} {format_size(held)}",
            " && ".join([*commands, launch_command(refused.request, refused.version)]),
        )
    return None


def unload_groups(reserved: Mapping[str, Bytes]) -> list[list[str]]:
    """The groups of models to unload, in the order in which they are tried; the last one is all models."""
    by_size = sorted(reserved, key=lambda uid: (sum(reserved[uid].values()), uid))
    return [[uid] for uid in by_size] + [by_size[-count:] for count in range(2, len(by_size) + 1)]


def _as_suggestion(refused: Refused, version: ModelVersion, change: str, what: str) -> Suggestion | None:
    plan = _fit(refused, version) if _can_run(refused, refused.engine, version) else None
    if plan is None:
        return None
    return Suggestion(change, f"{what}, {_need(plan)}", launch_command(refused.request, version))


def _fit(
    refused: Refused,
    version: ModelVersion | None = None,
    *,
    engine: str | None = None,
    options: Mapping[str, Any] | None = None,
    unloaded: Collection[str] = (),
) -> SizedPlan | None:
    """The plan of the launch with these changes; None: it does not fit."""
    draft = refused.launch.draft
    draft = replace(draft, version=version or draft.version, engine=engine or draft.engine)
    launch = replace(refused.launch, draft=draft, options=refused.launch.options if options is None else options)
    shape = refused.shape if version is None else _shape_of(refused, version)
    if version is not None and not refused.fits_disk(shape.weights_bytes):
        return None
    memory = available(refused.host, refused.occupancy_without(unloaded))
    try:
        return size_launch(launch, _NO_PATH, shape, memory, refused.engines[draft.engine].memory)
    except Problem:
        return None


def _need(plan: SizedPlan) -> str:
    return f"{format_size(plan.sizing.total_bytes)} of memory"


def _can_run(refused: Refused, engine: Engine, version: ModelVersion) -> bool:
    return bool(supports(engine, version) and engine.available(version.spec, refused.host))


def _same_size(refused: Refused) -> Iterator[ModelSpec]:
    size = refused.version.spec.model_size_in_billions
    return (s for s in refused.version.family.model_specs if same_size(s.model_size_in_billions, size))


def _versions(refused: Refused, specs: Iterable[ModelSpec]) -> Iterator[ModelVersion]:
    for spec in specs:
        for quantization in spec.quantizations:
            yield ModelVersion(family=refused.version.family, spec=spec, quantization=quantization)


def _shape_of(refused: Refused, version: ModelVersion) -> ModelShape:
    """The estimated shape of another version: from the registry, or in proportion to that of the refused one."""
    if (shape := stored_shape(version)) is not None:
        try:
            return registry_shape(shape, version)
        except Problem:  # a quantization whose types are not known
            pass
    if not same_size(version.spec.model_size_in_billions, refused.version.spec.model_size_in_billions):
        return rough_shape(version)
    own = rough_bits(refused.version.spec.model_format, refused.version.quantization)
    ratio = rough_bits(version.spec.model_format, version.quantization) / own
    return msgspec.structs.replace(
        refused.shape, weights_bytes=int(refused.shape.weights_bytes * ratio), bytes_by_type={}
    )


def _order(refused: Refused, version: ModelVersion | None = None) -> float:
    """A number by which the versions of one size are ordered: bits of a loaded weight, then bytes."""
    version = version or refused.version
    if version.spec.model_format == "pytorch":  # its files are the same for all quantizations
        return rough_bits("pytorch", version.quantization)
    return float(_shape_of(refused, version).weights_bytes)
