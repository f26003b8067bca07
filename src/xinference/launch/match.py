"""Finds the versions that a launch request allows, or raises a `Problem` that lists similar choices. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from xinference.catalog.models import (
    FORMAT_ALIASES,
    ModelFamily,
    ModelSpec,
    ModelVersion,
    number_of_billions,
    same_size,
    written_size,
)
from xinference.error_codes import Code
from xinference.errors import Problem, join_names, near
from xinference.launch.name_tag import read_tag, split_tag
from xinference.launch.quantization_order import inexactness, nearest_first, same_quantization
from xinference.launch.request import LaunchRequest

#: The formats in the order of preference: the one of the base install first, the one that must be converted and those
#: that no engine here runs last.
FORMATS = ("ggufv2", "pytorch", "gptq", "awq", "fp8", "fp4", "bnb", "ggmlv3", "mlx")
#: Quantizations that an engine makes of weights as trained while it loads them, where nobody publishes them packed.
ONLINE = ("fp8",)
#: Billions of parameters below which a model is small: its weights of 8 bits take less than 1 GB.
SMALL_BILLIONS = 1


def match(families: Mapping[str, ModelFamily], request: LaunchRequest) -> ModelVersion:
    """The first of `matches`."""
    return matches(families, request)[0]


def matches(families: Mapping[str, ModelFamily], request: LaunchRequest) -> tuple[ModelVersion, ...]:
    """Every version that has all fields of the request, in the order of preference.

    The smallest size is first, then the formats in the order of `FORMATS`, then the specs as in the registry, then the
    quantizations: the nearest to Q4_K_M first. Small embedding and rerank models are ordered by `inexactness`, over all
    specs of a size and format, because their results suffer more from few bits. Names are compared without case, and
    ``1_8`` equals ``1.8B``.

    Raises:
        Problem: 400 ``model_not_found``, with the accepted values.
    """
    family = _family(families, request.model_name)
    _check_type(family, request.model_type)
    specs = _with_quantization(_with_format(_with_size(families, family, request), family, request), family, request)
    return tuple(
        version
        for version in _in_order(family, specs)
        if request.quantization is None or same_quantization(version.quantization, request.quantization)
    )


def versions_in_order(family: ModelFamily) -> list[ModelVersion]:
    """Every version of a family, in the order of `matches`."""
    return _in_order(family, family.model_specs)


def _in_order(family: ModelFamily, specs: Iterable[ModelSpec]) -> list[ModelVersion]:
    groups: dict[tuple[tuple[bool, float], int], list[ModelSpec]] = {}
    for spec in specs:
        groups.setdefault((_size_order(spec), FORMATS.index(spec.model_format)), []).append(spec)
    return [version for place in sorted(groups) for version in _of_one_size_and_format(family, groups[place])]


def _of_one_size_and_format(family: ModelFamily, specs: Sequence[ModelSpec]) -> list[ModelVersion]:
    exact = needs_exactness(family, specs[0]) and specs[0].model_format != "pytorch"
    versions = [
        ModelVersion(family=family, spec=spec, quantization=quantization)
        for spec in specs
        for quantization in (spec.quantizations if exact else nearest_first(spec.quantizations, spec.model_format))
    ]
    return sorted(versions, key=lambda version: inexactness(version.quantization)) if exact else versions


def needs_exactness(family: ModelFamily, spec: ModelSpec) -> bool:
    """Whether the answers are vectors or scores, and the model is so small that few bits save little memory."""
    number = number_of_billions(spec.model_size_in_billions)
    return family.model_type != "LLM" and (isinstance(number, str) or number < SMALL_BILLIONS)


def _size_order(spec: ModelSpec) -> tuple[bool, float]:
    number = number_of_billions(spec.model_size_in_billions)
    return (True, 0.0) if isinstance(number, str) else (False, number)


def _family(families: Mapping[str, ModelFamily], name: str) -> ModelFamily:
    lowered = name.strip().lower()
    # By the names alone: a family is read at its first use.
    known = next((known for known in families if known.lower() == lowered), None)
    if known is not None:
        return families[known]
    raise Problem(
        Code.UNKNOWN_MODEL,
        f"There is no model named {name!r}.",
        hint=f"{_similar(families, name)} `xinference registrations` lists all models.",
    )


def _similar(families: Mapping[str, ModelFamily], name: str) -> str:
    """A sentence that names the models closest to `name`; those with the size of its tag, if it has one.

    They have the tag, too, so that the name can be used; its size alone if they have no such quantization.
    """
    beginning, tag = split_tag(name)
    close = near(name, families)
    size, quantization = read_tag(tag) if tag else (None, None)
    if size is not None:
        sized = [families[each] for each in near(beginning, families) if _has_size(families[each], size)]
        tags = (tag if _has_quantization(each, size, quantization) else size for each in sized)
        close = [f"{each.model_name}:{its_tag}" for each, its_tag in zip(sized, tags, strict=True)] or close
    return f"Did you mean {join_names(close)}?" if close else "A repository on a hub is named as owner/name."


def _has_size(family: ModelFamily, size: int | str) -> bool:
    return any(same_size(spec.model_size_in_billions, size) for spec in family.model_specs)


def _has_quantization(family: ModelFamily, size: int | str, quantization: str | None) -> bool:
    """Whether a size of the family has the quantization; None: any."""
    every = (
        each
        for spec in family.model_specs
        if same_size(spec.model_size_in_billions, size)
        for each in spec.quantizations
    )
    return quantization is None or any(same_quantization(each, quantization) for each in every)


def _check_type(family: ModelFamily, requested: str) -> None:
    """Check a requested type other than LLM, which is the default and allows every family."""
    if requested.strip().lower() not in ("llm", family.model_type.lower()):
        raise Problem(
            Code.UNKNOWN_MODEL,
            f"{family.model_name} is a model of the type {family.model_type}, not {requested}.",
            hint="Omit --model-type (`model_type`). `xinference registrations` lists all models with their types.",
        )


def _with_size(families: Mapping[str, ModelFamily], family: ModelFamily, request: LaunchRequest) -> Sequence[ModelSpec]:
    size = request.model_size_in_billions
    if size is None:
        return family.model_specs
    specs = [spec for spec in family.model_specs if same_size(spec.model_size_in_billions, size)]
    if specs:
        return specs
    # Not the similar ones, as for a name: `7B` is no slip of `1.7B`.
    known = dict.fromkeys(written_size(spec.model_size_in_billions) for spec in family.model_specs)
    others = [name for name in near(family.model_name, families) if _has_size(families[name], size)]
    elsewhere = f" {join_names(others, 'and')} {'has' if len(others) == 1 else 'have'} it." if others else ""
    raise Problem(
        Code.UNKNOWN_MODEL,
        f"{family.model_name} has no size {written_size(size)}.",
        hint=f"It has: {', '.join(known)}.{elsewhere}",
    )


def _with_format(specs: Sequence[ModelSpec], family: ModelFamily, request: LaunchRequest) -> Sequence[ModelSpec]:
    requested = request.model_format
    if requested is None:
        return specs
    model_format = FORMAT_ALIASES.get(requested.lower(), requested.lower())
    return _narrow(
        specs,
        lambda spec: spec.model_format == model_format,
        f"{_display_name(family, request.model_size_in_billions)} has no format {requested}",
        requested,
        (spec.model_format for spec in specs),
        lambda: _elsewhere(family, "size", lambda spec: spec.model_format == model_format),
    )


def _with_quantization(specs: Sequence[ModelSpec], family: ModelFamily, request: LaunchRequest) -> Sequence[ModelSpec]:
    requested = request.quantization
    if requested is None:
        return specs
    model_format = specs[0].model_format if request.model_format else None

    def has(spec: ModelSpec) -> bool:
        return any(same_quantization(quantization, requested) for quantization in spec.quantizations)

    name = _display_name(family, request.model_size_in_billions, model_format)
    if requested.lower() in ONLINE and not any(map(has, specs)):
        whole = [online for spec in specs if (online := _packed_online(spec, requested.lower())) is not None]
        if whole:
            return whole
    return _narrow(
        specs,
        has,
        f"{name} has no quantization {requested}",
        requested,
        (quantization for spec in specs for quantization in spec.quantizations),
        lambda: (
            _elsewhere(family, "format", lambda spec: has(spec) and _fits_size(spec, request))
            or _elsewhere(family, "size", has)
        ),
    )


def _packed_online(spec: ModelSpec, quantization: str) -> ModelSpec | None:
    """The weights as trained, with a quantization that an engine makes while it loads them; None: they are packed."""
    if spec.model_format != "pytorch" or "none" not in spec.quantizations:
        return None
    sources = tuple(
        msgspec.structs.replace(source, quantizations=None, model_id=source.model_id.replace("{quantization}", "none"))
        for source in spec.sources
        if source.has("none")
    )
    return msgspec.structs.replace(spec, quantizations=(quantization,), sources=sources)


def _fits_size(spec: ModelSpec, request: LaunchRequest) -> bool:
    size = request.model_size_in_billions
    return size is None or same_size(spec.model_size_in_billions, size)


def _elsewhere(family: ModelFamily, field: str, has: Callable[[ModelSpec], bool]) -> str:
    """A sentence that names the sizes or formats of the family that have the requested value; empty if none has."""
    specs = [spec for spec in family.model_specs if has(spec)]
    names = [written_size(s.model_size_in_billions) if field == "size" else s.model_format for s in specs]
    listed = list(dict.fromkeys(names))
    if not listed:
        return ""
    noun, verb = (field, "has") if len(listed) == 1 else (f"{field}s", "have")
    return f" The {noun} {join_names(listed, 'and')} {verb} it."


def _narrow(
    specs: Sequence[ModelSpec],
    fits: Callable[[ModelSpec], bool],
    refusal: str,
    requested: str,
    choices: Iterable[str],
    elsewhere: Callable[[], str] = str,
) -> Sequence[ModelSpec]:
    found = [spec for spec in specs if fits(spec)]
    if found:
        return found
    known = list(dict.fromkeys(choices))
    similar = near(requested, known)
    listed = f"Did you mean {join_names(similar)}?" if similar else f"It has: {', '.join(known)}."
    raise Problem(Code.UNKNOWN_MODEL, f"{refusal}.", hint=listed + elsewhere())


def _display_name(family: ModelFamily, size: int | str | None, model_format: str | None = None) -> str:
    written = None if size is None else written_size(size)
    return " ".join(part for part in (family.model_name, written, model_format) if part is not None)
