"""Checks the engines' own fields that have a constraint of an answer."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.protocol.constraint_limits import MAX_VALUES, limit_refusal
from xinference.protocol.grammar_limits import check_grammar
from xinference.protocol.regex_limits import check_regex
from xinference.protocol.schema_limits import SchemaLimits


def check_constraint_fields(fields: dict[str, Any]) -> None:
    """Check the engines' own fields with a constraint.

    Raises:
        Refusal: 400, with the field and the limit.
    """
    limits = SchemaLimits()
    for name, value in fields.items():
        if name == "structured_outputs" and isinstance(value, dict):
            for inner, constraint in value.items():
                _check_field(_STRUCTURED.get(inner, ""), constraint, f"{name}.{inner}", limits)
        elif name in _FIELDS:
            _check_field(_FIELDS[name], value, name, limits)


_FIELDS = {"grammar": "grammar", "ebnf": "grammar", "regex": "regex", "stop_regex": "regex", "json_schema": "schema"}
#: The engines' own fields with a constraint of an answer; each engine has some of them.
CONSTRAINTS = frozenset({"structured_outputs", *_FIELDS})
_STRUCTURED = {
    "json": "schema", "structural_tag": "schema", "grammar": "grammar", "regex": "regex", "choice": "choice",
    "whitespace_pattern": "regex",
}  # fmt: skip


def _check_field(kind: str, value: Any, where: str, limits: SchemaLimits) -> None:
    if kind == "grammar" and isinstance(value, str):
        check_grammar(value, where)
    elif kind == "regex":
        for regex in value if isinstance(value, list) else [value]:
            if isinstance(regex, str):
                limits.expanded = check_regex(regex, where, limits.expanded)
    elif kind == "schema" and isinstance(value, str):
        limits.check_text(value, where)
    elif kind == "schema":
        limits.check_json(msgspec.json.encode(value), where)
    elif kind == "choice" and isinstance(value, list) and len(value) > MAX_VALUES:
        raise limit_refusal(where, "choices", MAX_VALUES)
