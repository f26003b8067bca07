"""Finds the schema of a request that llama.cpp has refused: its error does not name the field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from xinference.engines.dialect import Body
from xinference.engines.llama_cpp.schema_forms import check_form
from xinference.error_codes import Code
from xinference.protocol.errors import Refusal


def refused_schema(request: bytes, fault: str) -> Refusal:
    """The refusal of a request with a schema that the engine could not use.

    Args:
        request: what the engine got; empty: not known.
        fault: the engine's text.
    """
    if refusal := wrong_form(request):
        return refusal
    fields = [where for where, _ in _schemas(request)]
    cause = f"{fields[0]}: the JSON schema" if len(fields) == 1 else "A JSON schema of the request"
    param = fields[0].partition(".")[0] if len(fields) == 1 else None
    return Refusal(Code.INVALID_CONSTRAINT, f"{cause} is not valid: {fault}", hint="Correct the schema.", param=param)


def wrong_form(request: bytes) -> Refusal | None:
    """The refusal of the first keyword of a schema that has a wrong value; None: there is no such keyword."""
    for where, schema in _schemas(request):
        try:
            check_form(schema, where, patterns=False)
        except Refusal as refusal:
            return refusal
    return None


def _schemas(request: bytes) -> Iterator[tuple[str, Body]]:
    """The schemas of a request, with their fields."""
    try:
        body = msgspec.json.decode(request)
    except (ValueError, RecursionError):
        return
    for path in (("response_format", "json_schema", "schema"), ("response_format", "schema"), ("json_schema",)):
        if isinstance(schema := _at(body, *path), dict):
            yield ".".join(path), schema
    tools = _at(body, "tools")
    for n, tool in enumerate(tools if isinstance(tools, list) else ()):
        for path in (("function", "parameters"), ("input_schema",)):
            if isinstance(schema := _at(tool, *path), dict):
                yield ".".join((f"tools[{n}]", *path)), schema


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
