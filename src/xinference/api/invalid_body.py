"""The text about a request that does not have the fields of its route: the field, its value, and what it may be."""

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
    # Of values outside their limits, with the names of pydantic's context.
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
    "too_short": "a list of at least {min_length} items",
    "too_long": "a list of at most {max_length} items",
}


#: The first part of the place of a parameter, which is no part of its name.
_PARAMETERS = ("query", "path", "header", "cookie")
_PARTS = ("body", *_PARAMETERS)


def invalid_body(errors: Sequence[Mapping[str, Any]], body: Any) -> str:
    """The text about the first field that is wrong.

    A field of several types has an error for each of them, whose place ends in the name of the type.
    """
    first = errors[0]
    if first["type"] == "missing" and first["loc"] == ("body",):
        return "The request has no body; it must have one in JSON."
    name = ".".join(_words(first["loc"])) or "body"
    if first["type"] == "missing":
        return f"{name} is required."
    if first["type"] == "extra_forbidden":
        return f"{name}: the request has no such field."
    where, value = _place(first, body)
    kinds = [_kind(each) for each in errors if _place(each, body)[0] == where]
    if first["loc"] == ("body",) and kinds[0] is not None:
        return f"The body must be {kinds[0]}."
    if not where or None in kinds:
        return f"{name}: {first['msg']}."
    needed = list(dict.fromkeys(kind for kind in kinds if kind is not None))
    return f"{'.'.join(where)} is {shown(value)}, but must be {join_names(needed)}."


def _kind(error: Mapping[str, Any]) -> str | None:
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"])
    kind = _KINDS.get(error["type"])
    return None if kind is None else kind.format_map(error.get("ctx") or {})


def _words(place: Sequence[Any]) -> list[str]:
    return [str(part) for part in (place[1:] if place[:1] and place[0] in _PARTS else place)]


def _place(error: Mapping[str, Any], body: Any) -> tuple[list[str], Any]:
    """The part of an error's place that is in the body, and the value there; or a parameter with its value."""
    place = error["loc"]
    if place and place[0] in _PARAMETERS:
        return _words(place[:2]), error.get("input")
    found: list[str] = []
    value = body
    for part in place[1:] if place and place[0] == "body" else ():
        is_there = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if not is_there:
            break
        found.append(str(part))
        value = value[part]
    return found, value
