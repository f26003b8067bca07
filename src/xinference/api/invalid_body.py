"""The text about a body that does not have the fields of its route: the field, its value, and what it may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xinference.errors import join_names, shown

#: Kinds of pydantic's errors -> what the value should be.
_KINDS: Mapping[str, str] = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_attributes_type": "an object",
}


def invalid_body(errors: Sequence[Mapping[str, Any]], body: Any) -> str:
    """The text about the first field that is wrong.

    A field of several types has an error for each of them, whose place ends in the name of the type.
    """
    first = errors[0]
    if first["type"] == "missing" and first["loc"] == ("body",):
        return "The request has no body; it must have one in JSON."
    where, value = _place(first["loc"], body)
    same = [each for each in errors if _place(each["loc"], body)[0] == where]
    kinds = [_kind(each) for each in same]
    if first["type"] == "missing" or not where or None in kinds:
        return f"{'.'.join(_words(first['loc'])) or 'body'}: {first['msg']}."
    needed = list(dict.fromkeys(kind for kind in kinds if kind is not None))
    return f"{'.'.join(where)} is {shown(value)}, but must be {join_names(needed)}."


def _kind(error: Mapping[str, Any]) -> str | None:
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"])
    return _KINDS.get(error["type"])


def _words(place: Sequence[Any]) -> list[str]:
    return [str(part) for part in place if part != "body"]


def _place(place: Sequence[Any], body: Any) -> tuple[list[str], Any]:
    """The part of an error's place that is in the body, and the value there."""
    found: list[str] = []
    value = body
    for part in place[1:] if place and place[0] == "body" else ():
        is_there = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if not is_there:
            break
        found.append(str(part))
        value = value[part]
    return found, value
