"""Derives a launch request for a model in no registry from the model's files. Blocking; run in a thread."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from xinference.catalog.models import FORMAT_ALIASES, FileFacts, ModelFamily, Source
from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.hubs.base import Hub
from xinference.hubs.local_files import missing_parts
from xinference.launch.request import LaunchRequest
from xinference.weights.family import derive_family, valid_name
from xinference.weights.file_source import FileSource
from xinference.weights.gguf_models import (
    GgufModel,
    choose_model,
    default_model,
    gguf_models,
    is_projector,
    quantization_in,
)
from xinference.weights.model_facts import ModelFacts, folder_facts, gguf_facts
from xinference.weights.origin import Origin, find_origin
from xinference.weights.reference import Reference, reference

_FORMATS = ("ggufv2", "pytorch", "gptq", "awq", "fp8", "fp4", "bnb")


@dataclass(frozen=True)
class DerivedRequest:
    """A complete request, with the reasons of its derived fields."""

    request: LaunchRequest
    """With the family, its name, format and quantization; for local weights, with their path."""
    reasons: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    """The reasons that a launch shows: a line for each field that the request leaves open."""


def requested_reference(request: LaunchRequest, families: Mapping[str, ModelFamily]) -> Reference | None:
    """The path or repository of a request that names no known model: from its name or its model path. Pure."""
    if request.family is not None or request.model_name.strip().lower() in {name.lower() for name in families}:
        return None
    return Reference(path=request.model_path) if request.model_path is not None else reference(request.model_name)


def derive(
    request: LaunchRequest,
    what: Reference,
    families: Collection[str],
    hubs: Mapping[str, Hub],
    preferred: str | None = None,
    *,
    any_quantization: bool = False,
    usable_bytes: int | None = None,
    formats: Collection[str] = (),
) -> DerivedRequest:
    """Derive the full request for a path or repository; `families` are the names that are taken.

    Args:
        preferred: the hub for a repository id, if the request names none.
        any_quantization: choose the smallest of several quantizations; for callers that launch nothing.
        usable_bytes: memory that a model may use on this machine; None: unknown.
        formats: the formats that the requested engine runs; empty: no engine is requested.

    Raises:
        Problem: 400: a field that can't be derived, with the flag that sets it; the hub's problems.
    """
    if what.quantization is not None and request.quantization is None:
        request = msgspec.structs.replace(request, quantization=what.quantization)
    origin = find_origin(what, request, hubs, preferred)
    name = valid_name(_stem(origin.name), families)
    if _choose_format(request, origin, formats) == "ggufv2":
        weights = _gguf_weights(request, origin, usable_bytes, any_quantization=any_quantization)
        if origin.name == origin.file and weights.facts.name and not origin.file.lower().endswith(".gguf"):
            name = valid_name(weights.facts.name, families)
    else:
        weights = _folder_weights(request, origin)
    facts, source = weights.facts, weights.source
    derived = derive_family(facts, name, origin.title, source, weights.quantizations, request)
    full = msgspec.structs.replace(
        request,
        family=derived.family,
        asked_name=request.model_name.strip(),
        model_name=name,
        model_type=derived.family.model_type,
        model_format=facts.model_format,
        quantization=weights.quantization,
        model_path=str(weights.path) if source.hub == "local" else None,
    )
    return DerivedRequest(full, (*weights.choices, *derived.reasons), weights.choices)


@dataclass(frozen=True)
class _Weights:
    """The weights for a request, among those of an origin."""

    facts: ModelFacts
    quantization: str | None
    source: Source
    """The origin's source, with the files of all its quantizations."""
    quantizations: tuple[str, ...]
    path: Path
    """Their path, if the origin is a folder of this machine."""
    choices: tuple[str, ...] = ()
    """See `DerivedRequest.choices`."""


def _gguf_weights(
    request: LaunchRequest, origin: Origin, usable_bytes: int | None, *, any_quantization: bool
) -> _Weights:
    files = origin.file_source.files
    every = [*gguf_models(files), *_without_ending(files, origin.file)]
    free = request.quantization is None and origin.file is None
    default = default_model(every, usable_bytes) if free else None
    choices: tuple[str, ...] = ()
    if free and any_quantization and every:
        model = _smallest(every)
    elif default is not None:
        model, choices = default.model, (default.reason,)
    else:
        model = choose_model(every, origin.title, request.quantization, origin.file, missing_parts(files))
    facts = gguf_facts(origin.file_source, model)
    source, quantizations = _gguf_source(origin.source, every, model, facts.quantization)
    source = msgspec.structs.replace(source, projectors=_projectors(origin.file_source))
    return _Weights(facts, facts.quantization, source, quantizations, Path(source.model_id) / model.files[0], choices)


def _folder_weights(request: LaunchRequest, origin: Origin) -> _Weights:
    facts, source = folder_facts(origin.file_source), origin.source
    _check_format(facts, request, origin.title)
    return _Weights(facts, request.quantization, source, _folder_quantizations(facts), Path(source.model_id))


def _without_ending(files: Mapping[str, int], file: str | None) -> list[GgufModel]:
    """The model of a named file whose name does not end with ``.gguf``."""
    if file is None or file.lower().endswith(".gguf"):
        return []
    return [GgufModel(quantization_in(file), (file,), files[file])]


def _choose_format(request: LaunchRequest, origin: Origin, formats: Collection[str]) -> str:
    """``ggufv2``, or another format for a folder with a config.json.

    Of a repository with both forms, the one that the requested engine runs, else GGUF, which the base install runs.
    """
    file_source, title = origin.file_source, origin.title
    ggufs = origin.file is not None or any(
        n.lower().endswith(".gguf") and not is_projector(n) for n in file_source.files
    )
    folder = "config.json" in file_source.files and any(n.endswith(".safetensors") for n in file_source.files)
    if request.model_format is not None:
        requested_format = FORMAT_ALIASES.get(request.model_format.lower(), request.model_format.lower())
        if requested_format not in _FORMATS:
            raise bad_request(
                f"Format {request.model_format} can't be derived from files.", hint=f"Use {', '.join(_FORMATS)}."
            )
        if requested_format == "ggufv2" and not ggufs:
            raise bad_request(f"{title} has no GGUF file.", hint="Leave --model-format out.", code=Code.UNKNOWN_MODEL)
        return requested_format
    if ggufs and folder:
        quantization = (request.quantization or "").lower()
        if quantization in ("none", "4-bit", "8-bit", "fp8"):
            return "pytorch"
        return "ggufv2" if not formats or "ggufv2" in formats else "pytorch"
    return "ggufv2" if ggufs else "pytorch"


def _check_format(facts: ModelFacts, request: LaunchRequest, title: str) -> None:
    requested_format = request.model_format
    if requested_format is not None and facts.model_format != requested_format.lower():
        raise bad_request(
            f"The weights of {title} have the format {facts.model_format}, not {requested_format}.",
            hint=f"Leave --model-format out, or set {facts.model_format}.",
            code=Code.UNKNOWN_MODEL,
        )


def _folder_quantizations(facts: ModelFacts) -> tuple[str, ...]:
    whole = facts.model_format == "pytorch" and facts.quantization == "none"
    return ("none", "8-bit", "4-bit") if whole and not (facts.embeds or facts.reranks) else (facts.quantization,)


def _smallest(models: list[GgufModel]) -> GgufModel:
    return min(models, key=lambda model: model.size_bytes)


def _gguf_source(
    source: Source, every: list[GgufModel], chosen: GgufModel, quantization: str
) -> tuple[Source, tuple[str, ...]]:
    """The quantizations by file name, each with its first model; `quantization` has the chosen model."""
    named = {quantization: chosen}
    for model in every:
        if model.quantization and model.quantization.lower() not in {name.lower() for name in named}:
            named[model.quantization] = model
    ordered = [name for name in dict.fromkeys([*(m.quantization for m in every), quantization]) if name in named]
    parts = {name: named[name].files for name in ordered if name is not None}
    sizes = {name: FileFacts(size=named[name].size_bytes) for name, files in parts.items() if len(files) == 1}
    return msgspec.structs.replace(source, parts=parts, facts=sizes), tuple(parts)


def _projectors(file_source: FileSource) -> tuple[str, ...]:
    return tuple(sorted(name for name in file_source.files if name.lower().endswith(".gguf") and is_projector(name)))


def _stem(name: str) -> str:
    """A file's name without its suffix and its part number."""
    path = PurePosixPath(name)
    if path.suffix.lower() != ".gguf":
        return name
    stem, _, rest = path.stem.rpartition("-of-")
    return stem.rpartition("-")[0] if stem and rest.isdecimal() and stem[-5:].isdecimal() else path.stem
