"""Model registrations: listing the models that can be launched, and adding and removing custom models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from xinference.api.dependencies import ControllerDep, KeyDep, visible_families
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.catalog.models import ModelFamily, same_size
from xinference.catalog.registrations import model_type_of
from xinference.control.controller import Controller
from xinference.error_codes import Code
from xinference.errors import join_names, near, not_found
from xinference.keys.visibility import manages

router = APIRouter(
    prefix="/v1/model_registrations", tags=["registrations"], route_class=StrictRoute, responses=ERROR_RESPONSES
)
Json = dict[str, Any]
#: The types of models that other versions serve: clients list the models of each type.
UNSERVED_TYPES = frozenset({"image", "audio", "video", "flexible", "world"})


class RegistrationBody(BaseModel):
    """A custom model."""

    model_config = ConfigDict(protected_namespaces=())

    model: str | dict[str, Any] = Field(description="The JSON of the model, as an object or as a text")
    persist: bool = Field(False, description="Keep the model after a restart of the server")
    worker_ip: str | None = Field(None, description="No effect: models are registered on the server")


@router.get("/{model_type}", response_model=list[Json])
async def registrations(
    controller: ControllerDep, key: KeyDep, model_type: str, detailed: bool = False, summary: bool = False
) -> Response:
    """List the models by name; for `manage` also each custom model whose file can't be read, with its `problem`.

    `summary`: with abilities, sizes and formats, in place of the versions that `detailed` lists.
    """
    if model_type.strip().lower() in UNSERVED_TYPES:
        return _json([])
    model_type = model_type_of(model_type)
    visible = visible_families(controller, key).values()
    families = [family for family in visible if family.model_type == model_type]
    if detailed:
        complete = await controller.weights.complete_versions(families)
        entries = [_describe_family(controller, family, complete, whole=manages(key)) for family in families]
    elif summary:
        entries = [_summarize(controller, family) for family in families]
    else:
        entries = [
            {"model_name": f.model_name, "is_builtin": controller.registrations.find(f.model_name) is None}
            for f in families
        ]
    if manages(key):
        entries += [each.to_dict() for each in controller.registrations.broken if each.model_type == model_type]
    entries.sort(key=lambda entry: str(entry["model_name"]).lower())
    return _json(entries)


@router.get("/{model_type}/{model_name}", responses=problems(404))
async def registration(controller: ControllerDep, key: KeyDep, model_type: str, model_name: str) -> Json:
    """Describe a model; for `manage`, a custom model has the fields of its own JSON."""
    model_type = model_type_of(model_type)
    families = {name: f for name, f in visible_families(controller, key).items() if f.model_type == model_type}
    family = next((f for name, f in families.items() if name.lower() == model_name.strip().lower()), None)
    if family is None:
        close = near(model_name, families)
        raise not_found(
            f"Model {model_name} not found.",
            hint=f"Did you mean {join_names(close)}?" if close else "`xinference registrations` lists all of them.",
            code=Code.MODEL_NOT_FOUND,
        )
    complete = await controller.weights.complete_versions([family])
    return _describe_family(controller, family, complete, whole=manages(key))


@router.post("/{model_type}", responses=problems(413, 415))
async def register(controller: ControllerDep, model_type: str, body: RegistrationBody) -> None:
    """Register a custom model; it can be launched by its name at once."""
    text = body.model if isinstance(body.model, str) else msgspec.json.encode(body.model).decode()
    controller.registrations.add(model_type_of(model_type), text, persist=body.persist)


@router.delete("/{model_type}/{model_name}", responses=problems(404, 409))
async def unregister(controller: ControllerDep, model_type: str, model_name: str) -> None:
    """Remove a custom model that no deployment uses."""
    registered = controller.registrations.find(model_name)
    users = controller.uids_of_family(registered.family.model_name) if registered else []
    controller.registrations.remove(model_type_of(model_type), model_name, users)


def _json(entries: list[Json]) -> Response:
    """The list as an answer. All language models are 1.5 MB, for which FastAPI's own encoder takes 0.3 s."""
    return Response(msgspec.json.encode(entries), media_type="application/json")


def _summarize(controller: Controller, family: ModelFamily) -> Json:
    """The fields by which people choose a family: all language models are 80 KB, without a look at the disk."""
    return {
        **{name: getattr(family, name) for name in _SUMMARY if hasattr(family, name)},
        "is_builtin": controller.registrations.find(family.model_name) is None,
        "model_sizes": list(dict.fromkeys(spec.model_size_in_billions for spec in family.model_specs)),
        "model_formats": list(dict.fromkeys(spec.model_format for spec in family.model_specs)),
    }


_SUMMARY = ("model_name", "model_description", "model_ability", "model_lang", "context_length", "dimensions")


def _describe_family(controller: Controller, family: ModelFamily, complete: Collection[str], *, whole: bool) -> Json:
    """The fields of a family, and its cached and running versions.

    With `whole`, the fields of a custom model's JSON override those of the family; without, there is no path of this
    machine among them.
    """
    registered = controller.registrations.find(family.model_name)
    fields: Json = msgspec.to_builtins(family)
    for spec, ours in zip(family.model_specs, fields["model_specs"], strict=True):
        first = spec.sources[0]
        ours |= {"model_id": first.model_id, "model_hub": first.hub, "model_revision": first.revision}
        if not whole and any(source.hub == "local" for source in spec.sources):
            ours |= {"sources": [source for source in ours["sources"] if source["hub"] != "local"]}
            ours |= {"model_id": None} if first.hub == "local" else {}
    if registered is not None and whole:
        fields |= registered.document
        fields["notes"] = list(registered.notes)
    fields["model_specs"] = [
        {**spec, "cache_status": _cache_status(spec, family, complete)} for spec in fields["model_specs"]
    ]
    running = Counter(controller.uids_of_family(family.model_name))
    return {
        **fields,
        "model_type": family.model_type,
        "is_builtin": registered is None,
        "model_version_count": sum(len(spec.quantizations) for spec in family.model_specs),
        "model_instance_count": running.total(),
    }


def _cache_status(spec: Mapping[str, Any], family: ModelFamily, complete: Collection[str]) -> bool | list[bool]:
    """Whether the weights are cached: one value for a single quantization, else a list of one for each."""
    quantizations = spec.get("quantizations") or [spec.get("quantization") or "none"]
    size = spec.get("model_size_in_billions") or 0
    sizes = (s.model_size_in_billions for s in family.model_specs if same_size(s.model_size_in_billions, str(size)))
    name = f"{family.model_name}--{next(sizes, size)}B--{spec.get('model_format', 'pytorch')}"
    each = [f"{name}--{quantization}" in complete for quantization in quantizations]
    return each if spec.get("quantizations") else each[0]
