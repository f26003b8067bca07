"""The specs of a registration: formats, sizes, quantizations and where the weights are, in both generations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import get_args
from urllib.parse import unquote

import msgspec

from xinference.catalog.check import FILE_FORMATS, MODEL_ID, QUANTIZATION, REVISION, SIZE
from xinference.catalog.fields import Fields, bad_field, one_of
from xinference.catalog.match import FORMAT_ALIASES
from xinference.catalog.models import GgmlFacts, HubName, ModelFamily, ModelFormat, ModelSpec, Source
from xinference.errors import Problem

FORMATS: tuple[ModelFormat, ...] = get_args(ModelFormat)
#: Formats of Xinference's registrations that no engine here runs.
NOT_RUN = {
    "mlx": "it is for Apple's GPUs",
    "fp8": "no engine here takes 8-bit floats yet",
    "fp4": "no engine here takes 4-bit floats yet",
    "bnb": "no engine here takes weights that bitsandbytes packed; format pytorch with 4-bit packs them at the start",
}
HUBS: dict[str, HubName] = {"huggingface": "huggingface", "modelscope": "modelscope"}
#: Hubs that registrations may name and nothing here fetches from.
OTHER_HUBS = ("csghub", "openmind_hub", "xorbits")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
_KNOWN = (
    "model_format", "model_size_in_billions", "activated_size_in_billions", "quantizations", "quantization",
    "model_id", "model_hub", "model_uri", "model_revision", "model_src", "model_file_name_template",
    "model_file_name_split_template", "quantization_parts", "multimodal_projectors", "ggml",
    "draft_model_id", "draft_model_file_name_template", "draft_quantizations", "cache_config",
)  # fmt: skip
_Q = "{quantization}"


@dataclass(frozen=True)
class _Place:
    """One hub's part of a spec; texts may have ``{quantization}`` in them."""

    hub: HubName
    model_id: str
    revision: str | None
    file: str | None
    quantizations: tuple[str, ...]
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def source(self, quantizations: Sequence[str], every: Sequence[str]) -> Source:
        mine = tuple(q for q in every if q in quantizations)
        only = mine[0] if len(mine) == 1 else _Q
        return Source(
            hub=self.hub,
            model_id=self.model_id.replace(_Q, only),
            revision=self.revision,
            file=self.file,
            quantizations=None if mine == tuple(every) else mine,
            parts={q: names for q, names in self.parts.items() if q in mine},
        )


def read_specs(
    family: Fields, like: ModelFamily | None, notes: list[str], *, sized: bool = True
) -> tuple[ModelSpec, ...]:
    """The specs of ``model_specs`` that can be run; `like` is the built-in family that the model is one of.

    Raises:
        Problem: 400, naming the field.
    """
    specs: list[ModelSpec] = []
    left_out: Problem | None = None
    for fields in family.objects("model_specs"):
        fields.check_names(_KNOWN)
        model_format = fields.text("model_format", f"It is one of {', '.join(FORMATS)}.").strip().lower()
        if model_format in NOT_RUN:
            left_out = left_out or fields.bad(
                "model_format",
                f"can't be run: {NOT_RUN[model_format]}",
                f"Register such weights as one of {', '.join(FORMATS)}.",
            )
            notes.append(f"{fields.path} is left out: {model_format}, and {NOT_RUN[model_format]}")
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
    places = _places(fields, model_format, notes)
    every = tuple(dict.fromkeys(q for place in places for q in place.quantizations))
    ggml = _ggml(fields, size, like) if model_format == "ggmlv3" else None
    # An id that names the quantization is another repository for each of them.
    each = any(_Q in place.model_id for place in places)
    return [
        ModelSpec(
            model_format=model_format,
            model_size_in_billions=size,
            quantizations=group,
            sources=tuple(
                place.source(place.quantizations, group) for place in places if set(place.quantizations) & set(group)
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
        raise fields.missing(name, "Give billions of parameters, such as 7 or '1_8'.")
    if isinstance(value, float) and value.is_integer() and 0 < value < 1 << 31:
        return int(value)
    usable = isinstance(value, (int, str, float)) and not isinstance(value, bool)
    # As a number, not as written: a text of ten thousand digits is none.
    if not usable or len(str(value)) > 20 or not SIZE.fullmatch(str(value)):
        raise fields.bad(name, "is no number of billions such as 7, '1_8' or 0.5")
    if float(str(value).replace("_", ".")) == 0:
        raise fields.bad(name, "is no number of billions such as 7, '1_8' or 0.5")
    return value if isinstance(value, int) else str(value)


def _places(fields: Fields, model_format: ModelFormat, notes: list[str]) -> list[_Place]:
    sources = fields.object("model_src")
    if sources is None:
        hub = fields.optional_text("model_hub") or "huggingface"
        return [_place(fields, fields, hub, "model_hub", model_format)]
    places = []
    for name in sources.items():
        if name.lower() in OTHER_HUBS:
            notes.append(f"{sources.at(name)} is left out: nothing is fetched from {name}")
            continue
        inner = sources.object(name)
        assert inner is not None
        places.append(_place(inner, fields, name, name, model_format))
    if not places:
        raise fields.bad("model_src", "names no hub that is fetched from", f"Name one of {', '.join(HUBS)}.")
    return places


def _place(inner: Fields, spec: Fields, hub: str, hub_field: str, model_format: ModelFormat) -> _Place:
    """`inner` has the hub's own fields, `spec` those of the whole spec; they are one where there is one hub."""
    quantizations = _quantizations(inner, model_format) or _quantizations(spec, model_format)
    if not quantizations:
        if model_format != "pytorch":
            raise spec.missing("quantizations", "Give a list such as ['Q4_K_M'], or one as `quantization`.")
        quantizations = ("none",)
    uri = inner.optional_text("model_uri")
    if uri is not None and uri.strip():
        known, model_id, revision = _local(inner, uri), _path(inner, uri), None
    else:
        known, model_id, revision = _remote(inner, hub, hub_field)
    file, parts = _files(inner, spec, model_format, model_id if known == "local" else None, quantizations)
    return _Place(known, model_id, revision, file, quantizations, parts)


def _quantizations(fields: Fields, model_format: ModelFormat) -> tuple[str, ...]:
    single = fields.optional_text("quantization")
    name = "quantizations" if single is None else "quantization"
    values = fields.texts("quantizations") if single is None else (single or "none",)
    for value in values:
        if not QUANTIZATION.fullmatch(value) or ".." in value:
            raise bad_field(fields.at(name), value, "can't be a part of a file name")
        if model_format in ("gptq", "awq") and not any(c.isdigit() for c in value):
            raise bad_field(fields.at(name), value, "names no number of bits", "Use a name such as Int4.")
    if len({value.lower() for value in values}) < len(values):
        raise fields.bad(name, "has one of them twice")
    return values


def _remote(fields: Fields, hub: str, hub_field: str) -> tuple[HubName, str, str | None]:
    if hub.lower() not in HUBS:
        why = "can't be fetched from here" if hub.lower() in OTHER_HUBS else "is no hub"
        raise bad_field(fields.at(hub_field), hub, why, f"Use one of {', '.join(HUBS)}, or model_uri with a folder.")
    known = HUBS[hub.lower()]
    model_id = fields.optional_text("model_id")
    if not model_id:
        raise fields.missing("model_id", "Give a repository such as org/name, or model_uri with a folder or file here.")
    form, meaning = MODEL_ID[known]
    if not form.fullmatch(model_id.replace(_Q, "q")) or ".." in model_id:
        raise fields.bad("model_id", f"is not {meaning}")
    revision = fields.optional_text("model_revision") or None
    if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
        raise fields.bad("model_revision", "is no commit, tag or branch")
    return known, model_id, revision


def _local(fields: Fields, uri: str) -> HubName:
    match = _SCHEME.fullmatch(uri)
    if match is not None and match["scheme"].lower() != "file":
        raise fields.bad(
            "model_uri", f"begins with {match['scheme']}://, and only file:// is read", "Fetch the weights to a folder."
        )
    return "local"


def _path(fields: Fields, uri: str) -> str:
    """The absolute path that a ``file://`` address or a plain path means."""
    match = _SCHEME.fullmatch(uri)
    path = (
        unquote(match["rest"].removeprefix("localhost/")) if match and "%" in uri else (match["rest"] if match else uri)
    )
    if match and match["rest"].startswith("localhost/"):
        path = f"/{path.removeprefix('localhost/')}"
    if "\0" in path or not path.isprintable():
        raise fields.bad("model_uri", "has a character that no path has")
    if not PurePosixPath(path).is_absolute():
        raise Problem(
            "invalid_registration",
            400,
            f"{fields.at('model_uri')}: Model URI cannot be a relative path: {uri}.",
            hint="Give an absolute path, such as file:///models/my-model.",
        )
    if ".." in PurePosixPath(path).parts:
        raise fields.bad("model_uri", "goes up with '..'", "Give the path without it.")
    return path


def _files(
    inner: Fields, spec: Fields, model_format: ModelFormat, here: str | None, quantizations: tuple[str, ...]
) -> tuple[str | None, dict[str, tuple[str, ...]]]:
    """The template of the weight files' names, and the parts of those that are split."""
    if model_format not in FILE_FORMATS:
        return None, {}
    fields = inner if inner.has("model_file_name_template") else spec
    template = fields.optional_text("model_file_name_template")
    if not template:
        if here is not None and here.lower().endswith((".gguf", ".bin")):
            return PurePosixPath(here).name, {}
        raise fields.missing("model_file_name_template", "Give the files' names, such as my-model.{quantization}.gguf.")
    _check_template(fields, "model_file_name_template", template, (_Q,))
    if here is None and len(quantizations) > 1 and _Q not in template:
        raise fields.bad("model_file_name_template", f"has no {_Q} in it, but stands for {len(quantizations)} files")
    return template, _parts(inner if inner.has("quantization_parts") else spec, quantizations)


def _parts(fields: Fields, quantizations: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    given = fields.object("quantization_parts")
    if given is None:
        return {}
    split = fields.text("model_file_name_split_template", "Give it with {quantization} and {part} in it.")
    _check_template(fields, "model_file_name_split_template", split, (_Q, "{part}"))
    if "{part}" not in split:
        raise fields.bad("model_file_name_split_template", "has no {part} in it")
    found = {}
    for quantization in given.items():
        if quantization not in quantizations:
            raise fields.bad("quantization_parts", f"has {quantization!r}, which is none of the quantizations")
        names = tuple(split.replace(_Q, quantization).replace("{part}", part) for part in given.texts(quantization))
        if not names or any("{" in name or not _is_inside(name) for name in names):
            raise given.bad(quantization, "is no list of parts such as ['00001-of-00002', '00002-of-00002']")
        found[quantization] = names
    return found


def _check_template(fields: Fields, name: str, template: str, placeholders: Iterable[str]) -> None:
    plain = template
    for placeholder in placeholders:
        plain = plain.replace(placeholder, "q")
    if "{" in plain or "}" in plain:
        raise fields.bad(name, f"has another placeholder than {' and '.join(placeholders)}")
    if not _is_inside(plain):
        raise fields.bad(name, "leaves the model's folder, or is no file name")


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return (
        all(part not in ("", ".", "..") for part in parts)
        and not any(c in name for c in "\\\0:")
        and name.isprintable()
    )


def _ggml(fields: Fields, size: int | str, like: ModelFamily | None) -> GgmlFacts:
    """What a ggmlv3 file leaves out: given, or as the built-in family of the same size has it."""
    if fields.has("ggml"):
        try:
            return msgspec.convert(fields.raw("ggml"), GgmlFacts)
        except msgspec.ValidationError as error:
            raise fields.bad("ggml", f"does not do: {error}", 'Give {"rms_norm_eps": 1e-05, "n_gqa": 1}.') from None
    for spec in like.model_specs if like else ():
        if spec.ggml is not None and str(spec.model_size_in_billions) == str(size):
            return spec.ggml
    raise fields.missing(
        "ggml",
        'A ggmlv3 file does not say everything: add "ggml": {"rms_norm_eps": 1e-05, "n_gqa": 1} with the model\'s own '
        "numbers, or take format ggufv2.",
    )


def _merge(specs: list[ModelSpec], new: ModelSpec, fields: Fields) -> None:
    """Add a spec; what an earlier one of the same format and size has, too, is one more hub for that one."""
    left = list(new.quantizations)
    for position, spec in enumerate(specs):
        same = (spec.model_format, str(spec.model_size_in_billions)) == (
            new.model_format,
            str(new.model_size_in_billions),
        )
        lowered = {q.lower(): q for q in spec.quantizations}
        both = {q: lowered[q.lower()] for q in left if same and q.lower() in lowered}
        if not both:
            continue
        hubs = {source.hub for source in spec.sources}
        repeated = [source for source in new.sources if source.hub in hubs]
        if repeated or any(q != mine for q, mine in both.items()):
            raise Problem(
                "invalid_registration",
                400,
                f"{fields.path} repeats {new.model_format} {new.model_size_in_billions} {', '.join(both)} of an "
                "earlier spec.",
                hint="Leave one of the two out.",
            )
        whole = tuple(both) == spec.quantizations
        added = tuple(
            msgspec.structs.replace(source, quantizations=None if whole else tuple(both), parts=_only(source, both))
            for source in new.sources
        )
        specs[position] = msgspec.structs.replace(spec, sources=(*spec.sources, *added))
        left = [q for q in left if q not in both]
    if not left:
        return
    sources = tuple(
        msgspec.structs.replace(
            source,
            quantizations=None if source.quantizations is None else tuple(q for q in source.quantizations if q in left),
            parts=_only(source, left),
        )
        for source in new.sources
        if source.quantizations is None or set(source.quantizations) & set(left)
    )
    specs.append(msgspec.structs.replace(new, quantizations=tuple(left), sources=sources))


def _only(source: Source, quantizations: Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {q: names for q, names in source.parts.items() if q in quantizations}
