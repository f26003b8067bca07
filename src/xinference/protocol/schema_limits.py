"""Checks JSON schemas: their parts, their patterns, and the schemas that a compiler merges."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import msgspec

from xinference.error_codes import Code
from xinference.protocol.constraint_limits import (
    MAX_ALTERNATIVES,
    MAX_BYTES,
    MAX_COMMON_PATTERNS,
    MAX_DEPTH,
    MAX_EXPANDED,
    MAX_LENGTH,
    MAX_PARTS,
    MAX_VALUES,
    contradiction_refusal,
    limit_refusal,
)
from xinference.protocol.errors import Refusal
from xinference.protocol.regex_limits import check_regex

#: A schema up to this size without a match of `QUANTIFIED` is within every limit.
SMALL_BYTES = 1024
QUANTIFIED = re.compile(rb'pattern|"min|"max|\$ref|\$dynamicRef|\$recursiveRef|allOf|\\u00')

_PAIRS = (
    ("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"),
    ("minContains", "maxContains"), ("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum"),
)  # fmt: skip
#: The names of references in the versions of JSON Schema.
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_COUNTS = frozenset(name for pair in _PAIRS[:4] for name in pair)
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependentRequired")
_LISTS = ("enum", "anyOf", "oneOf", "allOf", "prefixItems", "items", "type")


@dataclass
class SchemaLimits:
    """Checks the schemas of one request; their parts are counted together."""

    max_parts: int = MAX_PARTS
    parts: int = 0
    expanded: int = 0

    def check_json(self, schema: bytes, where: str) -> None:
        """Check the JSON of a schema, or of an object that contains a schema.

        Raises:
            Refusal: 400, with the limit.
        """
        if len(schema) > MAX_BYTES:
            raise limit_refusal(where, "bytes", MAX_BYTES)
        nested = schema.count(b"{") + schema.count(b"[")
        if len(schema) > SMALL_BYTES or nested > MAX_DEPTH or QUANTIFIED.search(schema):
            self.check(msgspec.json.decode(schema), where)
        else:
            self._count(where, schema.count(b","))

    def check_text(self, schema: str, where: str) -> None:
        """Check a schema that is a string with JSON. Text that is not JSON is refused by the engine's dialect."""
        if len(schema) > MAX_BYTES:
            raise limit_refusal(where, "characters", MAX_BYTES)
        try:
            self.check(json.loads(schema), where)
        except ValueError:
            return
        except RecursionError:
            raise limit_refusal(where, "nested levels", MAX_DEPTH) from None

    def check(self, schema: Any, where: str) -> None:
        """Check a decoded schema."""
        pending: list[tuple[Any, int]] = [(schema, 0)]
        nodes: list[dict[str, Any]] = []
        while pending:
            value, depth = pending.pop()
            if depth > MAX_DEPTH:
                raise limit_refusal(where, "nested levels", MAX_DEPTH)
            if isinstance(value, dict):
                nodes.append(value)
                self._check_node(value, where)
                pending += [(inner, depth + 1) for inner in value.values() if isinstance(inner, (dict, list))]
            elif isinstance(value, list):
                pending += [(inner, depth + 1) for inner in value if isinstance(inner, (dict, list))]
        try:
            _check_combinations(schema, nodes, where)
        except RecursionError:
            raise limit_refusal(where, "nested references", MAX_DEPTH) from None

    def _check_node(self, node: dict[str, Any], where: str) -> None:
        for name in _MAPS:
            if isinstance(node.get(name), dict):
                self._count(where, len(node[name]))
        for name in _LISTS:
            if isinstance(node.get(name), list):
                self._count(where, len(node[name]))
                limit = MAX_VALUES if name == "enum" else MAX_ALTERNATIVES
                if len(node[name]) > limit:
                    raise limit_refusal(where, f"values in one {name}", limit)
        properties, required = node.get("properties"), node.get("required")
        if isinstance(properties, dict):
            optional = len(properties) - (len(required) if isinstance(required, list) else 0)
            if optional > MAX_ALTERNATIVES:
                raise limit_refusal(where, "optional properties in one object", MAX_ALTERNATIVES)
        if isinstance(node.get("patternProperties"), dict):
            for pattern in node["patternProperties"]:
                self.expanded = check_regex(pattern, where, self.expanded)
        if isinstance(node.get("pattern"), str):
            self.expanded = check_regex(node["pattern"], where, self.expanded)
        for name in REFERENCES:
            reference = node.get(name)
            if isinstance(reference, str) and not reference.startswith("#"):
                raise Refusal(Code.MEDIA_ADDRESS, f"{where}: {name} is an address, which is not fetched.", param=where)
        _check_ranges(node, where)

    def _count(self, where: str, number: int) -> None:
        self.parts += number
        if self.parts > self.max_parts:
            raise limit_refusal(where, "properties, values and alternatives", self.max_parts)


def _check_combinations(schema: Any, nodes: Sequence[dict[str, Any]], where: str) -> None:
    combined = _Combinations(_targets(schema, nodes))
    for node in nodes:
        if "allOf" not in node and "$ref" not in node:
            continue
        if combined.alternatives(node) > MAX_ALTERNATIVES:
            raise limit_refusal(where, "combined alternatives", MAX_ALTERNATIVES)
        if combined.patterns(node) > MAX_COMMON_PATTERNS:
            raise limit_refusal(where, "patterns for one text", MAX_COMMON_PATTERNS)
        if combined.merged_schemas(node) > MAX_PARTS:
            raise limit_refusal(where, "combined schemas", MAX_PARTS)


def _check_ranges(node: dict[str, Any], where: str) -> None:
    for low, high in _PAIRS:
        least, most = node.get(low), node.get(high)
        if _is_number(least) and _is_number(most) and least > most:
            raise contradiction_refusal(where, f"{low} {_short(least)} is greater than {high} {_short(most)}")
    for name in _COUNTS:
        value = node.get(name)
        if not _is_number(value):
            continue
        if value < 0:
            raise contradiction_refusal(where, f"{name} is negative")
        if value > MAX_LENGTH:
            raise limit_refusal(where, f"in {name}", MAX_LENGTH)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return str(value)[:20]


def _targets(schema: Any, nodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The schemas of the references, by reference; None for a missing schema."""
    targets: dict[str, Any] = {}
    for node in nodes:
        reference = node.get("$ref")
        if isinstance(reference, str) and reference not in targets:
            targets[reference] = _target(schema, nodes, reference)
    return targets


def _target(schema: Any, nodes: Sequence[dict[str, Any]], reference: str) -> Any:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in reference.removeprefix("#").split("/") if step]
    # A reference is relative to the schema, which may be inside a wrapper: the first node with this path is used.
    with_definitions = [node for node in nodes if "$defs" in node or "definitions" in node]
    for root in (schema, *nodes[:4], *with_definitions[:8]):
        value = root
        for step in steps:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


@dataclass
class _Combinations:
    """Estimates the size of merged schemas: a compiler merges the schemas of one value, with all their alternatives."""

    targets: dict[str, Any]
    _known: dict[tuple[str, int], int] = field(default_factory=dict)

    def alternatives(self, node: Any) -> int:
        """The number of alternatives of the merged schema."""
        return self._measure("alternatives", node)

    def patterns(self, node: Any) -> int:
        """The number of patterns for the same text."""
        return self._measure("patterns", node)

    def merged_schemas(self, node: Any) -> int:
        """The number of schemas that are merged."""
        return self._measure("merged", node)

    def _measure(self, measure: str, node: Any) -> int:
        if not isinstance(node, dict):
            return 1 if measure != "patterns" else 0
        key = (measure, id(node))
        known = self._known.get(key)
        if known is None:
            self._known[key] = 1  # ends the recursion of a schema that refers to itself
            known = self._known[key] = min(self._compute_measure(measure, node), MAX_EXPANDED)
        return known

    def _compute_measure(self, measure: str, node: dict[str, Any]) -> int:
        every = list(node["allOf"]) if isinstance(node.get("allOf"), list) else []
        if isinstance(node.get("$ref"), str):
            every.append(self.targets.get(node["$ref"]))
        either = [
            [self._measure(measure, part) for part in node[name]]
            for name in ("anyOf", "oneOf")
            if isinstance(node.get(name), list) and node[name]
        ]
        values = [self._measure(measure, part) for part in every]
        if measure == "patterns":
            own = 1 if isinstance(node.get("pattern"), str) else 0
            return own + sum(values) + sum(max(one) for one in either)
        if measure == "merged":
            return 1 + sum(values)
        product = 1
        for number in (*values, *(sum(one) for one in either)):
            product = min(product * max(number, 1), MAX_EXPANDED)
        return product
