"""Checks registry entries beyond their schema: names, sizes and files must be safe and unambiguous.

Entries come from Xinference's files and from users; a name in them is used in paths and command lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from xinference.catalog.models import ModelFamily, ModelSpec, Source
from xinference.catalog.safe_names import MODEL_ID_MEANINGS, is_model_id, is_quantization, is_revision
from xinference.error_codes import Code
from xinference.errors import Problem

MODEL_NAME = re.compile(r"[^+/?%#&=\s\\\x00-\x1f\x7f]+")
ABILITIES = (
    "generate", "chat", "tools", "vision", "audio", "video", "omni", "reasoning", "hybrid", "code", "embed", "rerank",
    "embed_vision", "embed_video", "embed_audio", "rerank_vision", "rerank_video",
)  # fmt: skip
#: Formats whose weights are one file for each quantization; the weights of other formats are a folder.
FILE_FORMATS = ("ggufv2", "ggmlv3")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
SIZE = re.compile(r"\d+([._]\d+)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
#: File names without anything that `check_names` refuses: most names, in one step.
_PLAIN_NAME = re.compile(rf"{_PART}(/{_PART})*")


def check_family(family: ModelFamily, origin: str) -> None:
    """Check what the schema cannot express; `origin` is the file, for the message.

    Raises:
        Problem: 400 ``bad_registry_entry``, which names the file, the field and its value.
    """
    if not MODEL_NAME.fullmatch(family.model_name):
        raise bad_entry(
            origin, f"model_name {family.model_name!r} is empty or contains a space or one of + / \\ ? % # & ="
        )
    if family.context_length < 1:
        raise bad_entry(origin, f"context_length {family.context_length} is not a positive number")
    for ability in family.model_ability:
        if ability not in ABILITIES:
            raise bad_entry(origin, f"model_ability {ability!r} is not one of {', '.join(ABILITIES)}")
    for token in family.stop_token_ids:
        if token < 0:
            raise bad_entry(origin, f"stop_token_ids has {token}, which is negative")
    if not family.model_ability or not family.model_specs:
        raise bad_entry(origin, f"{'model_ability' if not family.model_ability else 'model_specs'} is empty")
    seen: set[tuple[str, float, str]] = set()
    for position, spec in enumerate(family.model_specs, 1):
        where = f"{origin}: model_specs[{position}]"
        _check_spec(spec, where, sized=family.model_type == "LLM")
        size = _size(spec)
        for quantization in spec.quantizations:
            key = (spec.model_format, size, quantization.lower())
            if key in seen:
                name = f"{spec.model_format} {spec.model_size_in_billions} {quantization}"
                raise bad_entry(where, f"quantizations repeats {name} of an earlier spec")
            seen.add(key)


def bad_entry(where: str, reason: str) -> Problem:
    """The problem of a faulty entry."""
    return Problem(Code.BAD_REGISTRY_ENTRY, f"{where}: {reason}.", hint="Correct this field of the model's JSON file.")


def _check_spec(spec: ModelSpec, where: str, *, sized: bool) -> None:
    size = spec.model_size_in_billions
    # Registrations of embedding models and rerankers may omit their size, which is then 0.
    if not SIZE.fullmatch(str(size)) or (sized and not _size(spec)):
        raise bad_entry(where, f"model_size_in_billions {size!r} is not a positive number such as 7, '1_8' or '0.5'")
    for field, values in (("quantizations", spec.quantizations), ("sources", spec.sources)):
        if not values:
            raise bad_entry(where, f"{field} is empty")
    for quantization in spec.quantizations:
        if not is_quantization(quantization):
            raise bad_entry(where, f"quantizations has {quantization!r}, which cannot be a part of a file name")
    hubs = [source.hub for source in spec.sources]
    for hub in hubs:
        if hubs.count(hub) > 1:
            raise bad_entry(where, f"sources has hub {hub!r} more than once")
    for source in spec.sources:
        _check_source(source, spec, f"{where}: source {source.hub}")


def _check_source(source: Source, spec: ModelSpec, where: str) -> None:
    if not is_model_id(source.hub, source.model_id):
        raise bad_entry(where, f"model_id {source.model_id!r} is not {MODEL_ID_MEANINGS[source.hub]}")
    if source.revision is not None and not is_revision(source.revision):
        raise bad_entry(where, f"revision {source.revision!r} is not a commit, tag or version")
    for field, named in (
        ("quantizations", source.quantizations or ()),
        ("parts", source.parts),
        ("facts", source.facts),
        ("weights_bytes", spec.weights_bytes),
    ):
        for quantization in named:
            if quantization not in spec.quantizations:
                raise bad_entry(where, f"{field} names quantization {quantization!r}, which the spec does not have")
    if source.quantizations == ():
        raise bad_entry(where, "quantizations is empty; leave it out if the hub has all of the spec's")
    _check_files(source, spec, where)
    _check_hashes(source, where)


def _check_files(source: Source, spec: ModelSpec, where: str) -> None:
    has = [quantization for quantization in spec.quantizations if source.has(quantization)]
    if spec.model_format in FILE_FORMATS:
        files_needed = [quantization for quantization in has if quantization not in source.parts]
        if files_needed and source.file is None:
            raise bad_entry(where, f"file is missing, and {spec.model_format} has one file for each quantization")
        if len(files_needed) > 1 and source.file is not None and "{quantization}" not in source.file:
            raise bad_entry(
                where,
                f"file {source.file!r} has no placeholder {{quantization}}, but {len(files_needed)} quantizations",
            )
    for quantization, parts in source.parts.items():
        if not parts:
            raise bad_entry(where, f"parts of {quantization} is empty")
    if source.file is not None:
        check_names("file", (source.file_name(quantization) or "" for quantization in has), where)
    check_names("parts", (name for parts in source.parts.values() for name in parts), where)
    check_names("projectors", source.projectors, where)
    _check_draft(source, where)
    if source.projectors and spec.model_format != "ggufv2":
        raise bad_entry(where, f"projectors need format ggufv2, not {spec.model_format}")


def _check_draft(source: Source, where: str) -> None:
    draft = source.draft
    if draft is None:
        return
    for quantization in draft.quantizations:
        if not is_quantization(quantization):
            raise bad_entry(where, f"draft: the quantization {quantization!r} cannot be a part of a file name")
    named = "{quantization}" in draft.model_id + (draft.file or "")
    if named != bool(draft.quantizations):
        raise bad_entry(where, "draft: the placeholder {quantization} and the quantizations go together")
    for quantization in draft.quantizations or ("",):
        model_id = draft.model_id.replace("{quantization}", quantization)
        if not is_model_id(source.hub, model_id):
            raise bad_entry(where, f"draft: the model_id {model_id!r} is not {MODEL_ID_MEANINGS[source.hub]}")
        if draft.file is not None:
            check_names("draft", [draft.file.replace("{quantization}", quantization)], where)


def check_names(field: str, names: Iterable[str], where: str) -> None:
    for name in names:
        if _PLAIN_NAME.fullmatch(name):
            continue
        steps = name.split("/")
        if (
            name.startswith("/")
            or ".." in steps
            or not any(step.strip(".") for step in steps)
            or "\\" in name
            or ":" in name
        ):
            raise bad_entry(where, f"{field}: the file name {name!r} is outside the model's folder")
        if _CONTROLS.search(name) or "{" in name or "}" in name:
            raise bad_entry(where, f"{field}: {name!r} is not a file name; the only placeholder is {{quantization}}")


def _check_hashes(source: Source, where: str) -> None:
    if source.archive_sha256 is not None and source.hub != "package_index":
        raise bad_entry(where, f"archive_sha256 is the hash of a wheel, and {source.hub} has none")
    hashes = {f"facts of {quantization}: sha256": facts.sha256 for quantization, facts in source.facts.items()}
    for field, value in {"archive_sha256": source.archive_sha256, **hashes}.items():
        if value is not None and not _SHA256.fullmatch(value):
            raise bad_entry(where, f"{field} {value!r} is not 64 lower-case hexadecimal digits")
    for quantization, facts in source.facts.items():
        if facts.size is not None and facts.size < 1:
            raise bad_entry(where, f"facts of {quantization}: size {facts.size} is not a positive number")


def _size(spec: ModelSpec) -> float:
    return float(str(spec.model_size_in_billions).replace("_", "."))
