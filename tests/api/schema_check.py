"""Holds a JSON value to the schema that the OpenAPI document has for it, with no field too much or too few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter


def undescribed(schema: Any, value: Any) -> set[str]:
    """The fields of `value`, by their paths, that `schema` does not have; raises if it does not fit otherwise."""
    return set(_extra(TypeAdapter(schema).validate_python(value), ""))


def absent(schema: Any, value: Any) -> set[str]:
    """The fields of `schema`, by their paths, that `value` does not have."""
    return set(_unset(TypeAdapter(schema).validate_python(value), ""))


def _extra(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{path}.{name}" for name in value.model_extra or ())
    for name, part in _parts(value):
        yield from _extra(part, f"{path}.{name}")


def _unset(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{path}.{name}" for name in type(value).model_fields.keys() - value.model_fields_set)
    for name, part in _parts(value):
        yield from _unset(part, f"{path}.{name}")


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        return [(name, getattr(value, name)) for name in type(value).model_fields]
    if isinstance(value, Mapping):
        return list(value.items())
    return [("[]", item) for item in value] if isinstance(value, list | tuple) else []
