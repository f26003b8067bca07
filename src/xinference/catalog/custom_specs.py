"""The specs of a registration: formats, sizes and quantizations; both JSON versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import get_args

import msgspec

from xinference.catalog.check import SIZE
from xinference.catalog.custom_places import PLACEHOLDER, read_locations
from xinference.catalog.fields import Fields, one_of
from xinference.catalog.models import FORMAT_ALIASES, GgmlFacts, ModelFamily, ModelFormat, ModelSpec, Source
from xinference.error_codes import Code
from xinference.errors import Problem

#: Formats of Xinference's registrations that no engine here supports.
UNSUPPORTED_FORMATS = {"mlx": "it is for Apple's GPUs"}
FORMATS: tuple[ModelFormat, ...] = tuple(name for name in get_args(ModelFormat) if name not in UNSUPPORTED_FORMATS)
_KNOWN = (
    "model_format", "model_size_in_billions", "activated_size_in_billions", "quantizations", "quantization",
    "model_id", "model_hub", "model_uri", "model_revision", "model_src", "model_file_name_template",
    "model_file_name_split_template", "quantization_parts", "multimodal_projectors", "ggml",
    "draft_model_id", "draft_model_file_name_template", "draft_quantizations", "cache_config",
)  # fmt: skip


def read_specs(
    family: Fields, like: ModelFamily | None, notes: list[str], *, sized: bool = True
) -> tuple[ModelSpec, ...]:
    """The runnable specs of ``model_specs``; `like` is the built-in family of the model.

    Raises:
        Problem: 400, which names the field.
    """
    specs: list[ModelSpec] = []
    left_out: Problem | None = None
    for fields in family.objects("model_specs"):
        fields.check_names(_KNOWN)
        model_format = fields.text("model_format", f"It is one of {', '.join(FORMATS)}.").strip().lower()
        if model_format in UNSUPPORTED_FORMATS:
            left_out = left_out or fields.bad(
                "model_format",
                f"can't be run: {UNSUPPORTED_FORMATS[model_format]}",
                f"Register such weights as one of {', '.join(FORMATS)}.",
            )
            notes.append(f"{fields.path} is left out: {model_format}, and {UNSUPPORTED_FORMATS[model_format]}")
            continue
        known = one_of(fields, "model_format", FORMAT_ALIASES.get(model_format, model_format), FORMATS)
        for spec in _read_spec(fields, next(f for f in FORMATS if f == known), like, notes, sized=sized):
            _merge(specs, spec, fields)
    if not specs and left_out is not None:
        raise left_out
    return tuple(specs)


def _read_spec(
    fields: Fields, model_format: ModelFormat, like: ModelFamily | None, notes: list[str], *, sized: bool
) -> list[ModelSpec]:
    size = _size(fields, sized=sized)
    locations = read_locations(fields, model_format, notes)
    every = tuple(dict.fromkeys(q for location in locations for q in location.quantizations))
    ggml = _ggml(fields, size, like) if model_format == "ggmlv3" else None
    # If the model id contains the quantization, each quantization is a separate repository.
    each = any(PLACEHOLDER in location.model_id for location in locations)
    return [
        ModelSpec(
            model_format=model_format,
            model_size_in_billions=size,
            quantizations=group,
            sources=tuple(
                location.source(location.quantizations, group)
                for location in locations
                if set(location.quantizations) & set(group)
            ),
            ggml=ggml,
        )
        for group in ([(quantization,) for quantization in every] if each else [every])
    ]


def _size(fields: Fields, *, sized: bool) -> int | str:
    name = "model_size_in_billions"
    value = fields.raw(name)
    if value is None:
        if not sized:
            return 0
        raise fields.missing(name, "Set billions of parameters, such as 7 or '1_8'.")
    if isinstance(value, float) and value.is_integer() and 0 < value < 1 << 31:
        return int(value)
    usable = isinstance(value, (int, str, float)) and not isinstance(value, bool)
    # As a number, not as text: a number of ten thousand digits is invalid.
    if not usable or len(str(value)) > 20 or not SIZE.fullmatch(str(value)):
        raise fields.bad(name, "is not a number of billions such as 7, '1_8' or 0.5")
    if float(str(value).replace("_", ".")) == 0:
        raise fields.bad(name, "is not a number of billions such as 7, '1_8' or 0.5")
    return value if isinstance(value, int) else str(value)


def _ggml(fields: Fields, size: int | str, like: ModelFamily | None) -> GgmlFacts:
    """Facts that a ggmlv3 file does not contain, from the registration or from a built-in spec of the same size."""
    if fields.has("ggml"):
        try:
            return msgspec.convert(fields.raw("ggml"), GgmlFacts)
        except msgspec.ValidationError as error:
            raise fields.bad("ggml", f"is not valid: {error}", 'Use {"rms_norm_eps": 1e-05, "n_gqa": 1}.') from None
    for spec in like.model_specs if like else ():
        if spec.ggml is not None and str(spec.model_size_in_billions) == str(size):
            return spec.ggml
    raise fields.missing(
        "ggml",
        'A ggmlv3 file lacks some facts: add "ggml": {"rms_norm_eps": 1e-05, "n_gqa": 1} with the model\'s own '
        "numbers, or use format ggufv2.",
    )


def _merge(specs: list[ModelSpec], new: ModelSpec, fields: Fields) -> None:
    """Add a spec; if an earlier spec has the same format, size and quantizations, its sources are added to that one."""
    left = list(new.quantizations)
    for position, spec in enumerate(specs):
        both = _common(spec, new, left)
        if both:
            specs[position] = _with_sources(spec, new, both, fields)
            left = [q for q in left if q not in both]
    if left:
        specs.append(_limited(new, left))


def _common(spec: ModelSpec, new: ModelSpec, quantizations: Iterable[str]) -> dict[str, str]:
    """Those of the new spec's quantizations that an earlier spec has -> their names there."""
    own_size, new_size = str(spec.model_size_in_billions), str(new.model_size_in_billions)
    if (spec.model_format, own_size) != (new.model_format, new_size):
        return {}
    lowered = {q.lower(): q for q in spec.quantizations}
    return {q: lowered[q.lower()] for q in quantizations if q.lower() in lowered}


def _with_sources(spec: ModelSpec, new: ModelSpec, both: Mapping[str, str], fields: Fields) -> ModelSpec:
    """An earlier spec with the new one's sources of these quantizations."""
    hubs = {source.hub for source in spec.sources}
    repeated = [source for source in new.sources if source.hub in hubs]
    if repeated or any(q != mine for q, mine in both.items()):
        raise Problem(
            Code.INVALID_REGISTRATION,
            f"{fields.path} repeats {new.model_format} {new.model_size_in_billions} {', '.join(both)} of an "
            "earlier spec.",
            hint="Remove one of the two.",
        )
    whole = tuple(both) == spec.quantizations
    added = tuple(
        msgspec.structs.replace(source, quantizations=None if whole else tuple(both), parts=_only(source, both))
        for source in new.sources
    )
    return msgspec.structs.replace(spec, sources=(*spec.sources, *added))


def _limited(spec: ModelSpec, left: list[str]) -> ModelSpec:
    """A spec with only these of its quantizations."""
    sources = tuple(
        msgspec.structs.replace(
            source,
            quantizations=None if source.quantizations is None else tuple(q for q in source.quantizations if q in left),
            parts=_only(source, left),
        )
        for source in spec.sources
        if source.quantizations is None or set(source.quantizations) & set(left)
    )
    return msgspec.structs.replace(spec, quantizations=tuple(left), sources=sources)


def _only(source: Source, quantizations: Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {q: names for q, names in source.parts.items() if q in quantizations}
