"""The locations of a registration's weights, on a hub or on this machine, with their file names; both JSON versions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote

from xinference.catalog.check import FILE_FORMATS
from xinference.catalog.fields import Fields, bad_field
from xinference.catalog.models import HubName, ModelFormat, Source
from xinference.catalog.safe_names import MODEL_ID_MEANINGS, is_inside, is_model_id, is_quantization, is_revision
from xinference.error_codes import Code
from xinference.errors import Problem

HUBS: dict[str, HubName] = {"huggingface": "huggingface", "modelscope": "modelscope"}
#: Hubs that registrations may name but that are not supported here.
UNSUPPORTED_HUBS = ("csghub", "openmind_hub", "xorbits")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
PLACEHOLDER = "{quantization}"


@dataclass(frozen=True)
class WeightLocation:
    """The part of a spec for one hub; texts may contain ``{quantization}``."""

    hub: HubName
    model_id: str
    revision: str | None
    file: str | None
    quantizations: tuple[str, ...]
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    projectors: tuple[str, ...] = ()

    def source(self, quantizations: Sequence[str], every: Sequence[str]) -> Source:
        mine = tuple(q for q in every if q in quantizations)
        only = mine[0] if len(mine) == 1 else PLACEHOLDER
        return Source(
            hub=self.hub,
            model_id=self.model_id.replace(PLACEHOLDER, only),
            revision=self.revision,
            file=self.file,
            quantizations=None if mine == tuple(every) else mine,
            parts={q: names for q, names in self.parts.items() if q in mine},
            projectors=self.projectors,
        )


def read_locations(fields: Fields, model_format: ModelFormat, notes: list[str]) -> list[WeightLocation]:
    """Every location of one spec, at least one. Raises `Problem` 400, which names the field."""
    sources = fields.object("model_src")
    if sources is None:
        hub = fields.optional_text("model_hub") or "huggingface"
        return [_read_location(fields, fields, hub, "model_hub", model_format)]
    locations = []
    for name in sources.items():
        if name.lower() in UNSUPPORTED_HUBS:
            notes.append(f"{sources.at(name)} is left out: the hub {name} is not supported")
            continue
        inner = sources.object(name)
        assert inner is not None
        locations.append(_read_location(inner, fields, name, name, model_format))
    if not locations:
        raise fields.bad("model_src", "has no supported hub", f"Name one of {', '.join(HUBS)}.")
    return locations


def _read_location(inner: Fields, spec: Fields, hub: str, hub_field: str, model_format: ModelFormat) -> WeightLocation:
    """`inner` has the hub's own fields, `spec` those of the whole spec; with one hub they are the same object."""
    quantizations = _quantizations(inner, model_format) or _quantizations(spec, model_format)
    if not quantizations:
        if model_format != "pytorch":
            raise spec.missing("quantizations", "Use a list such as ['Q4_K_M'], or one as `quantization`.")
        quantizations = ("none",)
    uri = inner.optional_text("model_uri")
    if uri is not None and uri.strip():
        known, model_id, revision = _local(inner, uri), _path(inner, uri), None
    else:
        known, model_id, revision = _remote(inner, hub, hub_field)
    file, parts = _files(inner, spec, model_format, model_id if known == "local" else None, quantizations)
    projectors = _projectors(inner if inner.has("multimodal_projectors") else spec, model_format)
    return WeightLocation(known, model_id, revision, file, quantizations, parts, projectors)


def _quantizations(fields: Fields, model_format: ModelFormat) -> tuple[str, ...]:
    single = fields.optional_text("quantization")
    name = "quantizations" if single is None else "quantization"
    values = fields.texts("quantizations") if single is None else (single or "none",)
    for value in values:
        if not is_quantization(value):
            raise bad_field(fields.at(name), value, "can't be part of a file name")
        if model_format in ("gptq", "awq") and not any(c.isdigit() for c in value):
            raise bad_field(fields.at(name), value, "has no number of bits", "Use a name such as Int4.")
    if len({value.lower() for value in values}) < len(values):
        raise fields.bad(name, "has duplicates")
    return values


def _remote(fields: Fields, hub: str, hub_field: str) -> tuple[HubName, str, str | None]:
    if hub.lower() not in HUBS:
        reason = "is not supported" if hub.lower() in UNSUPPORTED_HUBS else "is not a hub"
        raise bad_field(fields.at(hub_field), hub, reason, f"Use one of {', '.join(HUBS)}, or model_uri with a folder.")
    known = HUBS[hub.lower()]
    model_id = fields.optional_text("model_id")
    if not model_id:
        raise fields.missing("model_id", "Set a repository such as org/name, or model_uri with a local folder or file.")
    if not is_model_id(known, model_id.replace(PLACEHOLDER, "q")):
        raise fields.bad("model_id", f"is not {MODEL_ID_MEANINGS[known]}")
    revision = fields.optional_text("model_revision") or None
    if revision is not None and not is_revision(revision):
        raise fields.bad("model_revision", "is not a commit, tag or branch")
    return known, model_id, revision


def _local(fields: Fields, uri: str) -> HubName:
    match = _SCHEME.fullmatch(uri)
    if match is not None and match["scheme"].lower() != "file":
        raise fields.bad(
            "model_uri",
            f"begins with {match['scheme']:.40}://, and only file:// is supported",
            "Download the weights to a folder.",
        )
    return "local"


def _path(fields: Fields, uri: str) -> str:
    """The absolute path of a ``file://`` address or a plain path."""
    match = _SCHEME.fullmatch(uri)
    path = (
        unquote(match["rest"].removeprefix("localhost/")) if match and "%" in uri else (match["rest"] if match else uri)
    )
    if match and match["rest"].startswith("localhost/"):
        path = f"/{path.removeprefix('localhost/')}"
    if "\0" in path or not path.isprintable():
        raise fields.bad("model_uri", "has a character that is invalid in a path")
    if not PurePosixPath(path).is_absolute():
        raise Problem(
            Code.INVALID_REGISTRATION,
            f"{fields.at('model_uri')}: Model URI cannot be a relative path: {uri:.200}.",
            hint="Pass an absolute path, such as file:///models/my-model.",
        )
    if ".." in PurePosixPath(path).parts:
        raise fields.bad("model_uri", "contains '..'", "Pass the path without it.")
    return path


def _files(
    inner: Fields, spec: Fields, model_format: ModelFormat, local_path: str | None, quantizations: tuple[str, ...]
) -> tuple[str | None, dict[str, tuple[str, ...]]]:
    """The template of the weight files' names, and the parts of split files."""
    if model_format not in FILE_FORMATS:
        return None, {}
    fields = inner if inner.has("model_file_name_template") else spec
    template = fields.optional_text("model_file_name_template")
    if not template:
        if local_path is not None and local_path.lower().endswith((".gguf", ".bin")):
            return PurePosixPath(local_path).name, {}
        raise fields.missing("model_file_name_template", "Set the files' names, such as my-model.{quantization}.gguf.")
    _check_template(fields, "model_file_name_template", template, (PLACEHOLDER,))
    if local_path is None and len(quantizations) > 1 and PLACEHOLDER not in template:
        raise fields.bad(
            "model_file_name_template", f"has no placeholder {PLACEHOLDER}, but {len(quantizations)} quantizations"
        )
    return template, _parts(inner if inner.has("quantization_parts") else spec, quantizations)


def _projectors(fields: Fields, model_format: ModelFormat) -> tuple[str, ...]:
    name = "multimodal_projectors"
    names = fields.texts(name)
    if names and model_format != "ggufv2":
        raise fields.bad(name, f"needs format ggufv2, not {model_format}")
    if any(not is_inside(each) or "{" in each for each in names):
        raise fields.bad(name, "is not a list of file names such as ['mmproj-f16.gguf']")
    return names


def _parts(fields: Fields, quantizations: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    split_parts = fields.object("quantization_parts")
    if split_parts is None:
        return {}
    split = fields.text("model_file_name_split_template", "Use {quantization} and {part} as placeholders.")
    _check_template(fields, "model_file_name_split_template", split, (PLACEHOLDER, "{part}"))
    if "{part}" not in split:
        raise fields.bad("model_file_name_split_template", "has no placeholder {part}")
    names_by_quantization = {}
    for quantization in split_parts.items():
        if quantization not in quantizations:
            raise fields.bad("quantization_parts", f"has {quantization!r}, which is not one of the quantizations")
        names = tuple(
            split.replace(PLACEHOLDER, quantization).replace("{part}", part) for part in split_parts.texts(quantization)
        )
        if not names or any("{" in name or not is_inside(name) for name in names):
            raise split_parts.bad(quantization, "is not a list of parts such as ['00001-of-00002', '00002-of-00002']")
        names_by_quantization[quantization] = names
    return names_by_quantization


def _check_template(fields: Fields, name: str, template: str, placeholders: Iterable[str]) -> None:
    plain = template
    for placeholder in placeholders:
        plain = plain.replace(placeholder, "q")
    if "{" in plain or "}" in plain:
        raise fields.bad(name, f"has another placeholder than {' and '.join(placeholders)}")
    if not is_inside(plain):
        raise fields.bad(name, "is outside the model's folder, or is not a file name")
