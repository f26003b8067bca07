"""The fields of a family as JSON, without those that have their default."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec


def fields_of(value: Any) -> Any:
    """A family, or a part of one, as JSON."""
    if isinstance(value, msgspec.Struct):
        return {
            name: fields_of(given)
            for name, default in _defaults(type(value)).items()
            if (given := getattr(value, name)) != default
        }
    if isinstance(value, Mapping):
        return {name: fields_of(each) for name, each in value.items()}
    return [fields_of(each) for each in value] if isinstance(value, tuple) else value


@cache
def _defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The default of each field."""
    return {field.name: _default(field) for field in msgspec.structs.fields(kind)}


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
