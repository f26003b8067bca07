"""Checks that a schema has the form that the grammars of llama.cpp's completions can be made of.

A completion with another one has an answer without any constraint: the library reports the fault nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from xinference.engines.dialect import Body
from xinference.engines.request_schemas import schemas_of
from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
#: Parts of patterns that the library does not have: groups other than plain ones, and references.
_ODD_PATTERN = re.compile(r"\(\?(?!:)|\\[1-9]")
#: A class of characters, or an escaped character.
_CHARACTERS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\[^1-9]", re.DOTALL)


def check_form(schema: Body, where: str, *, patterns: bool = True) -> None:
    """Check the form of a schema.

    Args:
        where: the field with the schema, for the refusal.
        patterns: also check that the library has all parts of the patterns.

    Raises:
        Refusal: 400, with the keyword and its value.
    """
    pending: list[tuple[Any, str]] = [(schema, where)]
    while pending:
        node, at = pending.pop()
        if isinstance(node, bool):
            continue
        if not isinstance(node, dict):
            raise _refusal(at, f"it is an object, not {_short(node)}")
        for name, value in node.items():
            check = _CHECKS.get(name) if patterns or name != "pattern" else None
            if check is not None and (expected := check(value)):
                raise _refusal(f"{at}.{name}", f"it is {expected}, not {_short(value)}")
        _check_reference(schema, node.get("$ref"), at)
        pending += _inner(node, at)


def wrong_form(request: bytes) -> Refusal | None:
    """The refusal of the first keyword of a request's schemas that has a wrong value; None: there is no such keyword.

    Args:
        request: what the engine got; empty: not known.
    """
    for where, schema in schemas_of(request):
        try:
            check_form(schema, where, patterns=False)
        except Refusal as refusal:
            return refusal
    return None


def _inner(node: Body, at: str) -> list[tuple[Any, str]]:
    inner = [(value, f"{at}.{map_}.{name}") for map_ in _MAPS for name, value in node.get(map_, {}).items()]
    inner += [(value, f"{at}.{name}[{n}]") for name in _LISTS for n, value in enumerate(node.get(name, ()))]
    return inner + [(node[name], f"{at}.{name}") for name in _SCHEMAS if name in node]


def _check_reference(schema: Body, reference: Any, at: str) -> None:
    if reference is None:
        return
    value: Any = schema
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, dict | bool):
        raise _refusal(f"{at}.$ref", f"there is no {_short(reference)}")


def _refusal(at: str, fault: str) -> Refusal:
    hint = "Correct the schema."
    return Refusal(Code.INVALID_CONSTRAINT, f"{at}: {fault}.", hint=hint, param=at.partition(".")[0])


def _short(value: Any) -> str:
    return repr(value)[:100]


# Each returns what is expected in place of a wrong value.


def _type(value: Any) -> str | None:
    kinds = value if isinstance(value, list) else [value]
    return None if kinds and all(kind in _TYPES for kind in kinds) else f"one of {', '.join(_TYPES)}"


def _map(value: Any) -> str | None:
    return None if isinstance(value, dict) else "an object"


def _list(value: Any) -> str | None:
    return None if isinstance(value, list) and value else "a list with values"


def _names(value: Any) -> str | None:
    return None if isinstance(value, list) and all(isinstance(name, str) for name in value) else "a list of names"


def _count(value: Any) -> str | None:
    return None if _is_number(value) and value >= 0 and value == int(value) else "a number from 0 on"


def _number(value: Any) -> str | None:
    return None if _is_number(value) or isinstance(value, bool) else "a number"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else "a text"


def _pattern(value: Any) -> str | None:
    if not isinstance(value, str):
        return "a text"
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError):
        return "a regular expression"
    return (
        "a regular expression without assertions and references"
        if _ODD_PATTERN.search(_CHARACTERS.sub("", value))
        else None
    )


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "type": _type,
    "required": _names,
    "enum": _list,
    "pattern": _pattern,
    "format": _text,
    "$ref": _text,
    **dict.fromkeys(_MAPS, _map),
    **dict.fromkeys(_LISTS, _list),
    **dict.fromkeys(_COUNTS, _count),
    **dict.fromkeys(_NUMBERS, _number),
}
