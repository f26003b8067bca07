"""The limits of constraints of an answer: JSON schemas, regular expressions and grammars.

Engines compile constraints, and their compilers have no limits: one request could occupy an engine for minutes, or
crash it. So the gateway limits the bytes, the depth and the number of the parts, and estimates the size of the compiled
result. The numbers are measured on the slowest engine: with a vocabulary of 49,000 tokens, an enum of 800 values costs
6 s of CPU, and 400 objects in an anyOf more than 7 s, during which the engine answers no request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import msgspec

from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

MAX_BYTES = 64 * 1024
#: Maximum depth of nested objects and arrays in the JSON of a schema, and of nested parentheses.
MAX_DEPTH = 100
#: Maximum number of alternatives of one position: of anyOf, of optional properties, of a grammar's next elements.
MAX_ALTERNATIVES = 256
#: Maximum number of values of an enum or of choices, which are short and cost half as much.
MAX_VALUES = 512
#: Maximum number of properties, values, alternatives and rules in total.
MAX_PARTS = 2000
#: The same for all tools of a request: an agent has many, and an engine compiles only those that the model calls.
MAX_TOOL_PARTS = 10_000
#: Maximum number of patterns for the same text; with 16 of them, a compiler does not finish.
MAX_COMMON_PATTERNS = 8
#: Maximum number of repetitions of one part of a grammar or a regular expression.
MAX_REPEATS = 2000
#: Maximum length that a schema may require or allow of a text or an array.
MAX_LENGTH = 1_000_000
#: Maximum number of parts of a regular expression after its repetitions are expanded, and of repetitions in a grammar.
MAX_EXPANDED = 20_000
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


def limit_refusal(where: str, what: str, limit: int) -> Refusal:
    """The refusal of a constraint that exceeds a limit."""
    cause = f"{where}: it has more than {limit} {what}, the limit for a constraint of an answer."
    return Refusal(Code.CONSTRAINT_TOO_COMPLEX, cause, param=where)


def contradiction_refusal(where: str, cause: str) -> Refusal:
    """The refusal of a constraint that no answer can satisfy."""
    return Refusal(Code.INVALID_CONSTRAINT, f"{where}: {cause}.", param=where)


# -- JSON schemas -----------------------------------------------------------------------------------------------


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


# -- regular expressions ----------------------------------------------------------------------------------------

_REGEX_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d*)(,?)(\d*)\}|[()|*+?]|.", re.DOTALL)


def check_regex(regex: str, where: str, expanded: int = 0) -> int:
    """Check a regular expression; returns `expanded` plus the number of its parts after repetitions are expanded.

    Raises:
        Refusal: 400, with the limit.
    """
    if len(regex) > MAX_BYTES:
        raise limit_refusal(where, "characters", MAX_BYTES)
    sizes: list[int] = [0]
    last: list[int] = [0]
    for token in _REGEX_TOKEN.finditer(regex):
        text = token[0]
        if text == "(":
            if len(sizes) > MAX_DEPTH:
                raise limit_refusal(where, "nested parentheses", MAX_DEPTH)
            sizes.append(0)
            last.append(0)
        elif text == ")" and len(sizes) > 1:
            size = max(1, sizes.pop())
            last.pop()
            sizes[-1] += size
            last[-1] = size
        elif text[0] == "{" and len(text) > 1:
            times = _repeats(token[1], token[2], token[3], where)
            sizes[-1] += last[-1] * (max(1, times) - 1)
            last[-1] *= max(1, times)
        elif text not in "*+?|":
            sizes[-1] += 1
            last[-1] = 1
        if expanded + sizes[-1] > MAX_EXPANDED:
            raise limit_refusal(where, "parts after its repetitions are expanded", MAX_EXPANDED)
    return expanded + sum(sizes)


def _repeats(low: str, comma: str, high: str, where: str) -> int:
    """The number of repetitions of ``{low,high}``."""
    if len(low) > 9 or len(high) > 9:
        raise limit_refusal(where, "repetitions", MAX_REPEATS)
    least = int(low or 0)
    most = int(high) if high else least
    if high and most < least:
        raise contradiction_refusal(where, f"the minimum of the repetition {{{low},{high}}} is above the maximum")
    if max(least, most) > MAX_REPEATS:
        raise limit_refusal(where, "repetitions", MAX_REPEATS)
    return most


# -- grammars ---------------------------------------------------------------------------------------------------

_GRAMMAR_TOKEN = re.compile(
    r'"(?:\\.|[^"\\])*"|\[\^?(?:\\.|[^\]\\])*\]|#[^\n]*|::=|[A-Za-z0-9_-]+|\{\s*(\d*)\s*(,?)\s*(\d*)\s*\}|[()|*+?.:]|<[^>]*>|\S',
    re.DOTALL,
)
#: An element of an alternative and whether it may be empty. The element is the name of a rule, a group, or None for a
#: text or a character class.
_Element = tuple[Any, bool]
_Alternatives = list[list[_Element]]


def check_grammar(grammar: str, where: str) -> None:
    """Check a grammar in GBNF or another form of EBNF.

    Raises:
        Refusal: 400, with the limit.
    """
    if len(grammar) > MAX_BYTES:
        raise limit_refusal(where, "characters", MAX_BYTES)
    if grammar.lstrip().startswith("%"):
        raise Refusal(Code.UNSUPPORTED_FIELD, f"{where}: a grammar must be in GBNF.", param=where)
    rules = _rules(grammar, where)
    if len(rules) > MAX_PARTS:
        raise limit_refusal(where, "rules", MAX_PARTS)
    _Stacks(rules, where).check()


def _rules(grammar: str, where: str) -> dict[str, _Alternatives]:
    tokens = [token for token in _GRAMMAR_TOKEN.finditer(grammar) if not token[0].startswith("#")]
    rules: dict[str, _Alternatives] = {}
    current: _Alternatives = [[]]
    open_groups: list[_Alternatives] = []
    alternatives = repeats = 0
    for number, token in enumerate(tokens):
        text = token[0]
        following = tokens[number + 1][0] if number + 1 < len(tokens) else ""
        if following in ("::=", ":") and not open_groups:
            current = rules.setdefault(text, [])
            current.append([])
        elif text in ("::=", ":"):
            continue
        elif text == "(":
            if len(open_groups) >= MAX_DEPTH:
                raise limit_refusal(where, "nested parentheses", MAX_DEPTH)
            open_groups.append(current)
            current = [[]]
        elif text == ")" and open_groups:
            group, current = current, open_groups.pop()
            current[-1].append((group, False))
        elif text == "|":
            alternatives += 1
            current.append([])
        elif text in "*+?" or (text[0] == "{" and len(text) > 1):
            least = 0 if text in "*?" else 1
            if text[0] == "{":
                repeats += _repeats(token[1], token[2], token[3], where)
                least = int(token[1] or 0)
            if current[-1]:
                element, may_be_empty = current[-1][-1]
                current[-1][-1] = (element, may_be_empty or not least)
        else:
            is_name = text[0] not in '"[.<' and len(text.strip("\\")) > 0
            current[-1].append((text if is_name else None, text == '""'))
        if alternatives > MAX_PARTS:
            raise limit_refusal(where, "alternatives", MAX_PARTS)
        if repeats > MAX_EXPANDED:
            raise limit_refusal(where, "repetitions in total", MAX_EXPANDED)
    return rules


@dataclass
class _Stacks:
    """Estimates the number of parser stacks of an engine, which compares each token with the top of each stack."""

    rules: dict[str, _Alternatives]
    where: str
    _counts: dict[int, int] = field(default_factory=dict)
    _empty: dict[int, bool] = field(default_factory=dict)

    def check(self) -> None:
        """Check all rules. Raises a 400 `Refusal`."""
        for alternatives in self.rules.values():
            self._visit(alternatives)

    def _visit(self, root: _Alternatives) -> None:
        """Compute the rules and groups inside `root`, then `root`. Iterative, because the nesting may be deep."""
        pending: list[tuple[_Alternatives, bool]] = [(root, False)]
        visited: set[int] = set()
        while pending:
            alternatives, is_prepared = pending.pop()
            key = id(alternatives)
            if key in self._counts or (not is_prepared and key in visited):
                continue
            if not is_prepared:
                visited.add(key)
                pending.append((alternatives, True))
                for sequence in alternatives:
                    for element, _ in sequence:
                        inner = self._inner(element)
                        if inner is not None and id(inner) not in self._counts:
                            pending.append((inner, False))
                continue
            self._compute(alternatives)

    def _inner(self, element: Any) -> _Alternatives | None:
        return self.rules.get(element) if isinstance(element, str) else element

    def _compute(self, alternatives: _Alternatives) -> None:
        total, may_be_empty = 0, False
        for sequence in alternatives:
            count, empty = 0, True
            for element, is_optional in reversed(sequence):
                inner = self._inner(element)
                # If the inner rule is not computed yet, it refers to itself.
                own = 1 if inner is None else self._counts.get(id(inner), 1)
                element_may_be_empty = is_optional or (inner is not None and self._empty.get(id(inner), False))
                count = own + (count if element_may_be_empty else 0)
                empty = empty and element_may_be_empty
                if count > MAX_ALTERNATIVES:
                    raise limit_refusal(self.where, "alternatives at one place", MAX_ALTERNATIVES)
            total, may_be_empty = total + max(count, 1), may_be_empty or empty
        if total > MAX_ALTERNATIVES:
            raise limit_refusal(self.where, "alternatives at one place", MAX_ALTERNATIVES)
        self._counts[id(alternatives)], self._empty[id(alternatives)] = total, may_be_empty


# -- fields of engines ------------------------------------------------------------------------------------------


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
