"""From what a user asked for to one `ModelVersion`, or a `Problem` that lists the near choices. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xinference.catalog.models import FORMAT_ALIASES, ModelFamily, ModelSpec, ModelVersion, same_size
from xinference.errors import Problem, near
from xinference.launch.request import LaunchRequest


def match(families: Mapping[str, ModelFamily], request: LaunchRequest) -> ModelVersion:
    """Choose the first spec, in registry order, that agrees with everything the request names.

    Names are compared without regard to case, and ``1_8`` equals ``1.8``. Without a quantization the
    spec's first is taken, ``none`` where the spec has it.

    Raises:
        Problem: 400 ``model_not_found``, with the values that would have been accepted.
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
        wanted = FORMAT_ALIASES.get(request.model_format.lower(), request.model_format.lower())
        specs = _narrow(
            specs,
            [s for s in specs if s.model_format == wanted],
            _named(family, request.model_size_in_billions),
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
    found = by_lower.get(name.strip().lower())
    if found is not None:
        return found
    close = near(name, families)
    listed = f"Did you mean {_either(close)}?" if close else f"There are: {', '.join(sorted(families))}."
    raise Problem(
        "model_not_found",
        400,
        f"There is no model named {name!r}.",
        hint=f"{listed} `xinference registrations` lists all of them.",
    )


def _with_quantization(family: ModelFamily, specs: Sequence[ModelSpec], request: LaunchRequest) -> ModelVersion:
    wanted = str(request.quantization)
    for spec in specs:
        for quantization in spec.quantizations:
            if quantization.lower() == wanted.lower():
                return ModelVersion(family=family, spec=spec, quantization=quantization)
    named = _named(family, request.model_size_in_billions, specs[0].model_format if request.model_format else None)
    _narrow(specs, [], named, "quantization", wanted, (q for s in specs for q in s.quantizations))
    raise AssertionError("unreachable: an empty choice always raises")


def _narrow(
    specs: Sequence[ModelSpec],
    kept: Sequence[ModelSpec],
    named: str,
    what: str,
    wanted: str,
    choices: Iterable[str],
) -> Sequence[ModelSpec]:
    if kept:
        return kept
    known = list(dict.fromkeys(choices))
    close = near(wanted, known)
    raise Problem(
        "model_not_found",
        400,
        f"{named} has no {what} {wanted}.",
        hint=f"Did you mean {_either(close)}?" if close else f"It has: {', '.join(known)}.",
    )


def _named(family: ModelFamily, size: int | str | None, model_format: str | None = None) -> str:
    return " ".join(str(part) for part in (family.model_name, size, model_format) if part is not None)


def _either(names: Sequence[str]) -> str:
    return " or ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} or {names[-1]}"
