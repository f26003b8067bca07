"""The schemas of a request, and the refusal of one that its engine has refused: an engine's error names no field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from xinference.engines.dialect import Body
from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

#: The places of schemas in a request, and their names in the client's request.
_PLACES = (
    (("response_format", "json_schema", "schema"), "response_format.json_schema.schema"),
    (("response_format", "schema"), "response_format.schema"),
    (("json_schema",), "json_schema"),
    (("structured_outputs", "json"), "guided_json"),
)
_OF_TOOLS = (("function", "parameters"), ("input_schema",))


def refused_schema(request: bytes, fault: str) -> Refusal:
    """The refusal of a request with a schema that the engine could not use. It names the only schema of a request.

    Args:
        request: what the engine got; empty: not known.
        fault: the engine's text.
    """
    fields = [where for where, _ in schemas_of(request)]
    cause = f"{fields[0]}: the JSON schema" if len(fields) == 1 else "A JSON schema of the request"
    param = fields[0].partition(".")[0] if len(fields) == 1 else None
    return Refusal(Code.INVALID_CONSTRAINT, f"{cause} is not valid: {fault}", hint="Correct the schema.", param=param)


def schemas_of(request: bytes) -> Iterator[tuple[str, Body]]:
    """The schemas of a request, with their fields."""
    try:
        body = msgspec.json.decode(request)
    except (ValueError, RecursionError):
        return
    for path, name in _PLACES:
        if isinstance(schema := _at(body, *path), dict):
            yield name, schema
    tools = _at(body, "tools")
    for n, tool in enumerate(tools if isinstance(tools, list) else ()):
        for path in _OF_TOOLS:
            if isinstance(schema := _at(tool, *path), dict):
                yield ".".join((f"tools[{n}]", *path)), schema


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
