"""The values that a form allows in one of its fields, for the refusal of another value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from msgspec import inspect

_STEP = re.compile(r"\[[^\]]*\]|[^.\[\]]+")


def literal_values(form: Any, path: str) -> tuple[str, ...]:
    """The values of the field at a path such as ``messages[0].role``; empty if they are not listed in the form."""
    nodes = list(_alternatives(inspect.type_info(form)))
    for step in _STEP.findall(path):
        nodes = [inner for node in nodes for found in _member(node, step) for inner in _alternatives(found)]
    return tuple(
        dict.fromkeys(str(value) for node in nodes if isinstance(node, inspect.LiteralType) for value in node.values)
    )


def _alternatives(node: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(node, inspect.Metadata):
        yield from _alternatives(node.type)
    elif isinstance(node, inspect.UnionType):
        for inner in node.types:
            yield from _alternatives(inner)
    else:
        yield node


def _member(node: inspect.Type, step: str) -> Iterator[inspect.Type]:
    if step.startswith("["):
        if isinstance(node, inspect.CollectionType):
            yield node.item_type
        elif isinstance(node, inspect.DictType):
            yield node.value_type
    elif isinstance(node, inspect.StructType):
        yield from (field.type for field in node.fields if field.encode_name == step)
