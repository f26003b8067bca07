"""Matches a launch request to one `ModelVersion`, or raises a `Problem` that lists similar choices. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xinference.catalog.models import FORMAT_ALIASES, ModelFamily, ModelSpec, ModelVersion, same_size
from xinference.error_codes import Code
from xinference.errors import Problem, near
from xinference.launch.request import LaunchRequest


def match(families: Mapping[str, ModelFamily], request: LaunchRequest) -> ModelVersion:
    """Choose the first spec, in registry order, that matches every field of the request.

    Names are compared case-insensitively, and ``1_8`` equals ``1.8``. Without a quantization it chooses ``none`` if
    the spec has it, else the spec's first.

    Raises:
        Problem: 400 ``model_not_found``, with the accepted values.
    """
    family = _family(families, request.model_name)
    specs: Sequence[ModelSpec] = family.model_specs
    if request.model_size_in_billions is not None:
        specs = _narrow(
            specs,
            [s for s in specs if same_size(s.model_size_in_billions, request.model_size_in_billions)],
            family.model_name,
            "size",
            str(request.model_size_in_billions),
            (str(s.model_size_in_billions) for s in specs),
        )
    if request.model_format is not None:
        model_format = FORMAT_ALIASES.get(request.model_format.lower(), request.model_format.lower())
        specs = _narrow(
            specs,
            [s for s in specs if s.model_format == model_format],
            _display_name(family, request.model_size_in_billions),
            "format",
            request.model_format,
            (s.model_format for s in specs),
        )
    if request.quantization is None:
        spec = specs[0]
        quantization = "none" if "none" in spec.quantizations else spec.quantizations[0]
        return ModelVersion(family=family, spec=spec, quantization=quantization)
    return _with_quantization(family, specs, request)


def _family(families: Mapping[str, ModelFamily], name: str) -> ModelFamily:
    by_lower = {known.lower(): family for known, family in families.items()}
    family = by_lower.get(name.strip().lower())
    if family is not None:
        return family
    similar = near(name, families)
    listed = f"Did you mean {_join_names(similar)}?" if similar else "A repository on a hub is named as owner/name."
    raise Problem(
        Code.UNKNOWN_MODEL,
        f"There is no model named {name!r}.",
        hint=f"{listed} `xinference registrations` lists all models.",
    )


def _with_quantization(family: ModelFamily, specs: Sequence[ModelSpec], request: LaunchRequest) -> ModelVersion:
    requested = str(request.quantization)
    for spec in specs:
        for quantization in spec.quantizations:
            if quantization.lower() == requested.lower():
                return ModelVersion(family=family, spec=spec, quantization=quantization)
    model_format = specs[0].model_format if request.model_format else None
    name = _display_name(family, request.model_size_in_billions, model_format)
    _narrow(specs, [], name, "quantization", requested, (q for s in specs for q in s.quantizations))
    raise AssertionError("unreachable: `_narrow` raises for an empty list of matches")


def _narrow(
    specs: Sequence[ModelSpec],
    matches: Sequence[ModelSpec],
    name: str,
    field: str,
    requested: str,
    choices: Iterable[str],
) -> Sequence[ModelSpec]:
    if matches:
        return matches
    known = list(dict.fromkeys(choices))
    similar = near(requested, known)
    raise Problem(
        Code.UNKNOWN_MODEL,
        f"{name} has no {field} {requested}.",
        hint=f"Did you mean {_join_names(similar)}?" if similar else f"It has: {', '.join(known)}.",
    )


def _display_name(family: ModelFamily, size: int | str | None, model_format: str | None = None) -> str:
    return " ".join(str(part) for part in (family.model_name, size, model_format) if part is not None)


def _join_names(names: Sequence[str]) -> str:
    return " or ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} or {names[-1]}"
