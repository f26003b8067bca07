"""Checks and small repairs of fields that requests of several APIs share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from xinference.engines.dialect import Body
from xinference.error_codes import Code
from xinference.gateway.request_document import RequestDocument
from xinference.protocol.errors import Refusal

#: The formats of an answer; an engine refuses one that it does not have.
FORMATS = ("text", "json_object", "json_schema", "structural_tag")
#: The argument that holds what a model wrote in place of a JSON object.
UNREADABLE = "unreadable_arguments"


def required(param: str) -> Refusal:
    """The refusal of a body without this field."""
    return Refusal(Code.INVALID_REQUEST, f"{param} is required.", param=param)


def invalid(param: str, cause: str) -> Refusal:
    """The refusal of a field's value."""
    return Refusal(Code.INVALID_REQUEST, f"{param}: {cause}", param=param)


def not_one_of(param: str, value: Any, values: Iterable[str], other: str = "") -> Refusal:
    """The refusal of a value that is none of the field's values; `other` completes the sentence."""
    return invalid(param, f"invalid value {str(value)[:100]!r}, expected one of {', '.join(values)}{other}.")


def unsupported(param: str, cause: str, hint: str | None = None) -> Refusal:
    """The refusal of a field that the API has and this server does not serve."""
    return Refusal(Code.UNSUPPORTED_FIELD, f"{param}: {cause}", hint=hint, param=param)


def check_format(document: RequestDocument, value: Any, param: str) -> None:
    """Check the form of an answer's format; None: there is none.

    Raises:
        Refusal: 400, naming the field that is wrong or missing.
    """
    if not isinstance(value, dict):
        return
    document.drop_nulls(value)
    kind = value.get("type")
    if kind is None:
        raise required(f"{param}.type")
    if kind not in FORMATS:
        raise not_one_of(f"{param}.type", kind, FORMATS)
    if kind == "json_object" and value.get("schema") is not None:
        check_schema(value["schema"], f"{param}.schema")
    if kind != "json_schema":
        return
    inner = value.get("json_schema")
    if not isinstance(inner, dict):
        raise required(f"{param}.json_schema")
    document.drop_nulls(inner)
    check_schema(inner.get("schema"), f"{param}.json_schema.schema")


def check_format_place(holder: Any, param: str) -> None:
    """Refuse the members of a format beside its place in this object: the answer would have no format.

    Raises:
        Refusal: 400, naming the first of them.
    """
    if not isinstance(holder, dict) or holder.get("format") is not None:
        return
    for name in ("type", "schema", "json_schema"):
        if holder.get(name) is not None:
            cause = f"{param}.{name}: it is a member of {param}.format, without which the answer has no format."
            raise Refusal(Code.INVALID_REQUEST, cause, hint=f"Send {param}.format.", param=f"{param}.{name}")


def check_schema(schema: Any, param: str) -> None:
    """Check that there is a schema, which is an object: engines do not apply the schemas `true` and `false`."""
    if schema is None:
        raise required(param)
    if not isinstance(schema, dict):
        raise invalid(param, "a JSON schema is an object.")


def check_text(part: Body, at: str) -> None:
    if not isinstance(part.get("text"), str):
        raise required(f"{at}.text")


def readable_arguments(arguments: Any) -> str:
    """The arguments of a call as the JSON of an object; what is none is passed under a name of its own."""
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    text = arguments if isinstance(arguments, str) else ""
    if not text.strip():
        return "{}"
    try:
        value = msgspec.json.decode(text.encode())
    except (ValueError, RecursionError):
        value = text
    if isinstance(value, dict):
        return text
    return "{}" if value is None else json.dumps({UNREADABLE: value}, ensure_ascii=False)


def named_tool(function: Any, tools: dict[str, Body], at: str) -> Body:
    """The tool that this object names.

    Raises:
        Refusal: 400, it names none, or one that is not there.
    """
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise required(at)
    if name not in tools:
        cause = f"tool_choice names {name[:100]!r}, which is not in tools."
        raise Refusal(Code.INVALID_REQUEST, cause, param="tool_choice")
    return tools[name]
