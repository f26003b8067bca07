"""The registry of families: the built-in files, read once and checked on the way in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from types import MappingProxyType

import msgspec

from xinference.catalog.models import ModelFamily, Source
from xinference.errors import Problem

MODEL_NAME = re.compile(r"[^+/?%#&=\s]+")


def read_family(text: bytes, origin: str) -> ModelFamily:
    """Decode and check one family.

    Raises:
        Problem: 400 ``bad_registry_entry``, naming the file, the field and what is wrong with it.
    """
    try:
        family = msgspec.json.decode(text, type=ModelFamily)
    except msgspec.DecodeError as error:
        raise _bad(origin, str(error)) from None
    _check(family, origin)
    return family


@cache
def builtin_families() -> Mapping[str, ModelFamily]:
    """Every built-in family by name, in the order of the names."""
    families: dict[str, ModelFamily] = {}
    folder = resources.files("xinference.catalog") / "builtin"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".json"):
            family = read_family(file.read_bytes(), file.name)
            if family.model_name in families:
                raise _bad(file.name, f"the name {family.model_name!r} is already taken by another file")
            families[family.model_name] = family
    return MappingProxyType(families)


def _check(family: ModelFamily, origin: str) -> None:
    if not MODEL_NAME.fullmatch(family.model_name):
        raise _bad(origin, f"model_name {family.model_name!r} is empty or has one of + / ? % # & = or a space in it")
    if family.context_length < 1:
        raise _bad(origin, f"context_length {family.context_length} is not a positive number")
    if not family.model_specs:
        raise _bad(origin, "model_specs is empty")
    seen: set[tuple[str, str, str]] = set()
    for position, spec in enumerate(family.model_specs, 1):
        where = f"model_specs[{position}]"
        if not spec.quantizations or not spec.sources:
            raise _bad(origin, f"{where} needs at least one quantization and one source")
        for quantization in spec.quantizations:
            key = (spec.model_format, str(spec.model_size_in_billions), quantization.lower())
            if key in seen:
                raise _bad(origin, f"{where} repeats {' '.join(key)} of an earlier spec")
            seen.add(key)
        for source in spec.sources:
            _check_source(source, spec.quantizations, f"{origin}: {where}")


def _check_source(source: Source, quantizations: tuple[str, ...], where: str) -> None:
    names = [source.file_name(q) for q in quantizations] + [n for names in source.parts.values() for n in names]
    for name in names:
        if name is not None and (PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not name):
            raise _bad(where, f"the file name {name!r} leaves the model's folder")
    for quantization in (*(source.quantizations or ()), *source.parts, *source.facts):
        if quantization not in quantizations:
            raise _bad(where, f"the source names quantization {quantization!r}, which the spec does not have")


def _bad(origin: str, reason: str) -> Problem:
    return Problem(
        "bad_registry_entry", 400, f"{origin}: {reason}.", hint="Correct this field of the model's JSON file."
    )
