"""A launch of something that no registry names: found, looked at and described. Blocking; run in a thread."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from xinference.catalog.models import FORMAT_ALIASES, FileFacts, ModelFamily, Source
from xinference.errors import Problem, bad_request
from xinference.hubs.base import Hub
from xinference.hubs.local_files import seems_a_model
from xinference.hubs.repositories.repository import RepositoryHub
from xinference.launch.request import LaunchRequest
from xinference.weights.family import derive_family, valid_name
from xinference.weights.file_source import FolderPlace, HubPlace, Place
from xinference.weights.gguf_models import GgufModel, choose_model, gguf_models, is_projector
from xinference.weights.model_facts import Evidence, of_folder, of_gguf
from xinference.weights.reference import Reference, reference

#: Hubs that are asked for an id, in this order, if none is named.
_HUBS = ("huggingface", "modelscope")
_FORMATS = ("ggufv2", "pytorch", "gptq", "awq")


@dataclass(frozen=True)
class Found:
    """A request that says everything, and why it says so."""

    request: LaunchRequest
    """With the family, its name, format and quantization; of weights here, with their path."""
    reasons: tuple[str, ...] = ()


def meant(request: LaunchRequest, families: Mapping[str, ModelFamily]) -> Reference | None:
    """What a request refers to if it names no known model: by its name, or by the path that it gives. Pure."""
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
) -> Found:
    """Describe what a request refers to; `families` are the names that are taken.

    Args:
        preferred: the hub to ask for an id, if the request names none.
        any_quantization: take the first where it would have to be chosen: nothing is launched.

    Raises:
        Problem: 400: what can't be derived, with the flag that says it; what the hub answers.
    """
    look = _local(request, what.path) if what.path is not None else _remote(what, request, hubs, preferred)
    name = valid_name(_stem(look.name), families)
    if _wanted_format(request, look) == "ggufv2":
        every = gguf_models(look.place.files)
        free = any_quantization and request.quantization is None and look.file is None
        model = _smallest(every) if free and every else choose_model(every, look.title, request.quantization, look.file)
        evidence = of_gguf(look.place, model)
        quantization: str | None = evidence.quantization
        source, quantizations = _gguf_source(look.source, every, model, evidence.quantization)
        source = msgspec.structs.replace(source, projectors=_projectors(look.place))
        path = Path(source.model_id) / model.files[0]
    else:
        evidence, quantization = of_folder(look.place), request.quantization
        _check_format(evidence, request, look.title)
        source, quantizations = look.source, _folder_quantizations(evidence)
        path = Path(source.model_id)
    derived = derive_family(evidence, name, look.title, source, quantizations, request)
    full = msgspec.structs.replace(
        request,
        family=derived.family,
        asked_name=request.model_name.strip(),
        model_name=name,
        model_type=derived.family.model_type,
        model_format=evidence.model_format,
        quantization=quantization,
        model_path=str(path) if source.hub == "local" else None,
    )
    return Found(full, derived.reasons)


@dataclass(frozen=True)
class _Look:
    """Where to look, and for what."""

    place: Place
    title: str
    """What it is called in sentences."""
    name: str
    """What the model's name is made of."""
    file: str | None
    """The one file that is meant."""
    source: Source


def _local(request: LaunchRequest, given: str) -> _Look:
    path = Path(given).expanduser()
    if not path.is_absolute():
        raise bad_request(
            f"{given} is a relative path, and the server has a working directory of its own.",
            hint="Give the absolute path.",
            code="model_path_not_found",
        )
    if not seems_a_model(path):
        # The same whether something is there or not: the path may be one of the server's own files.
        raise bad_request(
            f"{given} does not exist on the server's machine, or is neither a GGUF file nor the folder of a model.",
            hint="Check the path; a repository is named as owner/name.",
            code="model_path_not_found",
        )
    if not path.exists():
        raise bad_request(
            f"{given} does not exist on the server's machine.",
            hint="Check the path; a repository is named as owner/name.",
            code="model_path_not_found",
        )
    folder, file = (path, None) if path.is_dir() else (path.parent, path.name)
    if file is not None and not file.lower().endswith(".gguf"):
        raise bad_request(
            f"{given} is no GGUF file.",
            hint="Give a .gguf file, or the folder that holds the config.json and the safetensors.",
            code="bad_weight_file",
        )
    asked = request.model_name.strip()
    by_path = request.model_path is None or reference(asked) is not None
    name = path.absolute().name if by_path else asked
    return _Look(FolderPlace(folder), given, name, file, Source(hub="local", model_id=str(folder.absolute())))


def _remote(what: Reference, request: LaunchRequest, hubs: Mapping[str, Hub], preferred: str | None) -> _Look:
    assert what.model_id is not None
    place = _repository(what.model_id, what.revision, hubs, request.download_hub or preferred)
    return _Look(
        place,
        f"{request.model_name.strip()} on {place.hub.name}",
        (what.file or what.model_id).rpartition("/")[2],
        what.file,
        Source(hub=place.hub.name, model_id=what.model_id, revision=place.listing.revision),
    )


def _repository(model_id: str, revision: str | None, hubs: Mapping[str, Hub], named: str | None) -> HubPlace:
    if named and named not in _HUBS:
        raise bad_request(
            f"{named} has no repositories by owner and name.",
            hint=f"Use one of {', '.join(_HUBS)}.",
            code="unknown_hub",
        )
    first: Problem | None = None
    for name in [named] if named else _HUBS:
        hub = hubs.get(name)
        assert isinstance(hub, RepositoryHub)
        try:
            return HubPlace(hub, model_id, hub.listing(model_id, revision))
        except Problem as problem:
            if problem.code == "bad_source":
                raise bad_request(
                    f"{model_id}@{revision} is no repository's id with a revision.",
                    hint="Name it as owner/name or owner/name@revision.",
                ) from None
            if first is None or (problem.code == "gated_model" and first.code == "hub_unreachable"):
                first = problem
    assert first is not None
    raise first


def _wanted_format(request: LaunchRequest, look: _Look) -> str:
    """``ggufv2``, or another word for the folder of a config.json."""
    place, title = look.place, look.title
    ggufs = look.file is not None or any(n.lower().endswith(".gguf") and not is_projector(n) for n in place.files)
    folder = "config.json" in place.files and any(n.endswith(".safetensors") for n in place.files)
    if request.model_format is not None:
        wanted = FORMAT_ALIASES.get(request.model_format.lower(), request.model_format.lower())
        if wanted not in _FORMATS:
            raise bad_request(
                f"Format {request.model_format} can't be derived from files.", hint=f"Use {', '.join(_FORMATS)}."
            )
        if wanted == "ggufv2" and not ggufs:
            raise bad_request(f"{title} has no GGUF file.", hint="Leave --model-format out.", code="model_not_found")
        return wanted
    if ggufs and folder:
        quantization = (request.quantization or "").lower()
        if any((m.quantization or "").lower() == quantization for m in gguf_models(place.files)):
            return "ggufv2"
        if quantization in ("none", "4-bit", "8-bit"):
            return "pytorch"
        raise Problem(
            "format_needed",
            400,
            f"{title} has the model as GGUF and as safetensors.",
            hint="Choose with --model-format ggufv2 or --model-format pytorch.",
        )
    return "ggufv2" if ggufs else "pytorch"


def _check_format(evidence: Evidence, request: LaunchRequest, title: str) -> None:
    wanted = request.model_format
    if wanted is not None and evidence.model_format != wanted.lower():
        raise bad_request(
            f"The weights of {title} are of the format {evidence.model_format}, not {wanted}.",
            hint=f"Leave --model-format out, or say {evidence.model_format}.",
            code="model_not_found",
        )


def _folder_quantizations(evidence: Evidence) -> tuple[str, ...]:
    whole = evidence.model_format == "pytorch" and evidence.quantization == "none"
    return (
        ("none", "8-bit", "4-bit") if whole and not (evidence.embeds or evidence.reranks) else (evidence.quantization,)
    )


def _smallest(models: list[GgufModel]) -> GgufModel:
    return min(models, key=lambda model: model.size_bytes)


def _gguf_source(
    source: Source, every: list[GgufModel], chosen: GgufModel, quantization: str
) -> tuple[Source, tuple[str, ...]]:
    """Every quantization whose name is one model's, the chosen one first of its name."""
    named = {quantization: chosen}
    for model in every:
        if model.quantization and model.quantization.lower() not in {name.lower() for name in named}:
            named[model.quantization] = model
    ordered = [name for name in dict.fromkeys([*(m.quantization for m in every), quantization]) if name in named]
    parts = {name: named[name].files for name in ordered if name is not None}
    sizes = {name: FileFacts(size=named[name].size_bytes) for name, files in parts.items() if len(files) == 1}
    return msgspec.structs.replace(source, parts=parts, facts=sizes), tuple(parts)


def _projectors(place: Place) -> tuple[str, ...]:
    return tuple(sorted(name for name in place.files if name.lower().endswith(".gguf") and is_projector(name)))


def _stem(name: str) -> str:
    """A file's name without what makes it a file or a part."""
    path = PurePosixPath(name)
    if path.suffix.lower() != ".gguf":
        return name
    stem, _, rest = path.stem.rpartition("-of-")
    return stem.rpartition("-")[0] if stem and rest.isdecimal() and stem[-5:].isdecimal() else path.stem
