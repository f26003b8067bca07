"""The limits of what constrains an answer: JSON schemas, regular expressions and grammars.

Engines compile them, and their compilers have no limits of their own: one request could occupy an engine for minutes,
or end it. So the gateway bounds the bytes, the depth and the number of the parts, and estimates what a compiler makes
of them. The numbers are measured on the slowest of the engines: with a vocabulary of 49,000 tokens, an enum of
800 values costs it 6 s of CPU, and 400 objects in an anyOf more than 7 s, during which it answers no request.
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
#: Nested objects and arrays of a schema's JSON, and nested parentheses.
MAX_DEPTH = 100
#: Alternatives at one place: of anyOf, optional properties of an object, what a grammar allows next.
MAX_ALTERNATIVES = 256
#: Values of an enum, choices: they are short, and cost half as much.
MAX_VALUES = 512
#: Properties, values, alternatives and rules in all.
MAX_PARTS = 2000
#: The same of all tools of a request: an agent has many, and they are compiled only as far as the model calls them.
MAX_TOOL_PARTS = 10_000
#: Patterns that hold for the same text at once; a compiler has no answer to 16 of them.
MAX_COMMON_PATTERNS = 8
#: Repetitions of one part of a grammar or a regular expression.
MAX_REPEATS = 2000
#: The same of a schema's text or array.
MAX_LENGTH = 1_000_000
#: Parts of a regular expression once its repetitions are written out; repetitions of a grammar in all.
MAX_EXPANDED = 20_000
#: A schema up to this size without what `QUANTIFIED` finds is within every limit.
SMALL_BYTES = 1024
QUANTIFIED = re.compile(rb'pattern|"min|"max|\$ref|allOf|\\u00')

_PAIRS = (
    ("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"),
    ("minContains", "maxContains"), ("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum"),
)  # fmt: skip
_COUNTS = frozenset(name for pair in _PAIRS[:4] for name in pair)
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependentRequired")
_LISTS = ("enum", "anyOf", "oneOf", "allOf", "prefixItems", "items", "type")


def exceeded(where: str, what: str, limit: int) -> Refusal:
    """The refusal of a constraint that is beyond a limit."""
    cause = f"{where}: it has more than {limit} {what}, which is the limit of what constrains an answer."
    return Refusal(Code.CONSTRAINT_TOO_COMPLEX, cause, param=where)


def contradictory(where: str, cause: str) -> Refusal:
    """The refusal of a constraint that nothing satisfies."""
    return Refusal(Code.INVALID_CONSTRAINT, f"{where}: {cause}.", param=where)


# -- JSON schemas -----------------------------------------------------------------------------------------------


@dataclass
class SchemaLimits:
    """Checks the schemas of one request; their parts are counted together."""

    max_parts: int = MAX_PARTS
    parts: int = 0
    expanded: int = 0

    def check_json(self, schema: bytes, where: str) -> None:
        """Check a schema, or an object around one, as it stands in the body.

        Raises:
            Refusal: 400, naming the limit.
        """
        if len(schema) > MAX_BYTES:
            raise exceeded(where, "bytes", MAX_BYTES)
        nested = schema.count(b"{") + schema.count(b"[")
        if len(schema) > SMALL_BYTES or nested > MAX_DEPTH or QUANTIFIED.search(schema):
            self.check(msgspec.json.decode(schema), where)
        else:
            self._count(where, schema.count(b","))

    def check_text(self, schema: str, where: str) -> None:
        """Check a schema that is given as JSON in a string; the engine's dialect refuses what is not JSON."""
        if len(schema) > MAX_BYTES:
            raise exceeded(where, "characters", MAX_BYTES)
        try:
            self.check(json.loads(schema), where)
        except ValueError:
            return
        except RecursionError:
            raise exceeded(where, "nested levels", MAX_DEPTH) from None

    def check(self, schema: Any, where: str) -> None:
        """Check a decoded schema."""
        pending: list[tuple[Any, int]] = [(schema, 0)]
        nodes: list[dict[str, Any]] = []
        while pending:
            value, depth = pending.pop()
            if depth > MAX_DEPTH:
                raise exceeded(where, "nested levels", MAX_DEPTH)
            if isinstance(value, dict):
                nodes.append(value)
                self._check_node(value, where)
                pending += [(inner, depth + 1) for inner in value.values() if isinstance(inner, (dict, list))]
            elif isinstance(value, list):
                pending += [(inner, depth + 1) for inner in value if isinstance(inner, (dict, list))]
        try:
            _check_combinations(schema, nodes, where)
        except RecursionError:
            raise exceeded(where, "references that lead to another", MAX_DEPTH) from None

    def _check_node(self, node: dict[str, Any], where: str) -> None:
        for name in _MAPS:
            if isinstance(node.get(name), dict):
                self._count(where, len(node[name]))
        for name in _LISTS:
            if isinstance(node.get(name), list):
                self._count(where, len(node[name]))
                limit = MAX_VALUES if name == "enum" else MAX_ALTERNATIVES
                if len(node[name]) > limit:
                    raise exceeded(where, f"values of {name} at one place", limit)
        properties, required = node.get("properties"), node.get("required")
        if isinstance(properties, dict):
            optional = len(properties) - (len(required) if isinstance(required, list) else 0)
            if optional > MAX_ALTERNATIVES:
                raise exceeded(where, "optional properties in one object", MAX_ALTERNATIVES)
        if isinstance(node.get("patternProperties"), dict):
            for pattern in node["patternProperties"]:
                self.expanded = check_regex(pattern, where, self.expanded)
        if isinstance(node.get("pattern"), str):
            self.expanded = check_regex(node["pattern"], where, self.expanded)
        reference = node.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise Refusal(Code.MEDIA_ADDRESS, f"{where}: $ref is an address, which is not fetched.", param=where)
        _check_ranges(node, where)

    def _count(self, where: str, number: int) -> None:
        self.parts += number
        if self.parts > self.max_parts:
            raise exceeded(where, "properties, values and alternatives", self.max_parts)


def _check_combinations(schema: Any, nodes: Sequence[dict[str, Any]], where: str) -> None:
    combined = _Combinations(_targets(schema, nodes))
    for node in nodes:
        if "allOf" not in node and "$ref" not in node:
            continue
        if combined.alternatives(node) > MAX_ALTERNATIVES:
            raise exceeded(where, "combined alternatives", MAX_ALTERNATIVES)
        if combined.patterns(node) > MAX_COMMON_PATTERNS:
            raise exceeded(where, "patterns for one text", MAX_COMMON_PATTERNS)
        if combined.merged(node) > MAX_PARTS:
            raise exceeded(where, "combined schemas", MAX_PARTS)


def _check_ranges(node: dict[str, Any], where: str) -> None:
    for low, high in _PAIRS:
        least, most = node.get(low), node.get(high)
        if _is_number(least) and _is_number(most) and least > most:
            raise contradictory(where, f"{low} {_short(least)} is above {high} {_short(most)}")
    for name in _COUNTS:
        value = node.get(name)
        if not _is_number(value):
            continue
        if value < 0:
            raise contradictory(where, f"{name} is negative")
        if value > MAX_LENGTH:
            raise exceeded(where, f"in {name}", MAX_LENGTH)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return str(value)[:20]


def _targets(schema: Any, nodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The schemas that the references name, as far as they are there."""
    targets: dict[str, Any] = {}
    for node in nodes:
        reference = node.get("$ref")
        if isinstance(reference, str) and reference not in targets:
            targets[reference] = _target(schema, nodes, reference)
    return targets


def _target(schema: Any, nodes: Sequence[dict[str, Any]], reference: str) -> Any:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in reference.removeprefix("#").split("/") if step]
    # A wrapper may hold the schema, so the first node that has what is named is taken.
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
    """What a compiler makes of schemas that hold at once: it merges them, and the alternatives of each with each."""

    targets: dict[str, Any]
    _known: dict[tuple[str, int], int] = field(default_factory=dict)

    def alternatives(self, node: Any) -> int:
        """The alternatives that the merged schema has."""
        return self._of("alternatives", node)

    def patterns(self, node: Any) -> int:
        """The patterns that hold for the same text."""
        return self._of("patterns", node)

    def merged(self, node: Any) -> int:
        """The schemas that are merged into one."""
        return self._of("merged", node)

    def _of(self, measure: str, node: Any) -> int:
        if not isinstance(node, dict):
            return 1 if measure != "patterns" else 0
        key = (measure, id(node))
        known = self._known.get(key)
        if known is None:
            self._known[key] = 1  # a reference to itself ends here
            known = self._known[key] = min(self._computed(measure, node), MAX_EXPANDED)
        return known

    def _computed(self, measure: str, node: dict[str, Any]) -> int:
        every = list(node["allOf"]) if isinstance(node.get("allOf"), list) else []
        if isinstance(node.get("$ref"), str):
            every.append(self.targets.get(node["$ref"]))
        either = [
            [self._of(measure, part) for part in node[name]]
            for name in ("anyOf", "oneOf")
            if isinstance(node.get(name), list) and node[name]
        ]
        values = [self._of(measure, part) for part in every]
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
    """Check a regular expression; returns `expanded` and its parts once its repetitions are written out.

    Raises:
        Refusal: 400, naming the limit.
    """
    if len(regex) > MAX_BYTES:
        raise exceeded(where, "characters", MAX_BYTES)
    sizes: list[int] = [0]
    last: list[int] = [0]
    for token in _REGEX_TOKEN.finditer(regex):
        text = token[0]
        if text == "(":
            if len(sizes) > MAX_DEPTH:
                raise exceeded(where, "nested parentheses", MAX_DEPTH)
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
            raise exceeded(where, "parts after its repetitions are written out", MAX_EXPANDED)
    return expanded + sum(sizes)


def _repeats(low: str, comma: str, high: str, where: str) -> int:
    """The number of repetitions that ``{low,high}`` writes out."""
    if len(low) > 9 or len(high) > 9:
        raise exceeded(where, "repetitions", MAX_REPEATS)
    least = int(low or 0)
    most = int(high) if high else least
    if high and most < least:
        raise contradictory(where, f"the repetition {{{low},{high}}} has its minimum above its maximum")
    if max(least, most) > MAX_REPEATS:
        raise exceeded(where, "repetitions", MAX_REPEATS)
    return most


# -- grammars ---------------------------------------------------------------------------------------------------

_GRAMMAR_TOKEN = re.compile(
    r'"(?:\\.|[^"\\])*"|\[\^?(?:\\.|[^\]\\])*\]|#[^\n]*|::=|[A-Za-z0-9_-]+|\{\s*(\d*)\s*(,?)\s*(\d*)\s*\}|[()|*+?.:]|<[^>]*>|\S',
    re.DOTALL,
)
#: A sequence of an alternative: names of rules, groups, and None for a text or a character class.
_Element = tuple[Any, bool]
_Alternatives = list[list[_Element]]


def check_grammar(grammar: str, where: str) -> None:
    """Check a grammar in GBNF or another form of EBNF.

    Raises:
        Refusal: 400, naming the limit.
    """
    if len(grammar) > MAX_BYTES:
        raise exceeded(where, "characters", MAX_BYTES)
    if grammar.lstrip().startswith("%"):
        raise Refusal(Code.UNSUPPORTED_FIELD, f"{where}: a grammar is taken in GBNF only.", param=where)
    rules = _rules(grammar, where)
    if len(rules) > MAX_PARTS:
        raise exceeded(where, "rules", MAX_PARTS)
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
                raise exceeded(where, "nested parentheses", MAX_DEPTH)
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
            raise exceeded(where, "alternatives", MAX_PARTS)
        if repeats > MAX_EXPANDED:
            raise exceeded(where, "repetitions in all", MAX_EXPANDED)
    return rules


@dataclass
class _Stacks:
    """Estimates how many places of the grammar an engine follows at once: it compares each token with each of them."""

    rules: dict[str, _Alternatives]
    where: str
    _counts: dict[int, int] = field(default_factory=dict)
    _empty: dict[int, bool] = field(default_factory=dict)

    def check(self) -> None:
        """Raises: Refusal: 400."""
        for alternatives in self.rules.values():
            self._visit(alternatives)

    def _visit(self, root: _Alternatives) -> None:
        """Compute `root` after what it is made of; without recursion, as rules may be nested deeply."""
        pending: list[tuple[_Alternatives, bool]] = [(root, False)]
        open_here: set[int] = set()
        while pending:
            alternatives, is_prepared = pending.pop()
            key = id(alternatives)
            if key in self._counts or (not is_prepared and key in open_here):
                continue
            if not is_prepared:
                open_here.add(key)
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
                # A rule that is not computed yet refers to itself.
                own = 1 if inner is None else self._counts.get(id(inner), 1)
                own_empty = is_optional or (inner is not None and self._empty.get(id(inner), False))
                count = own + (count if own_empty else 0)
                empty = empty and own_empty
                if count > MAX_ALTERNATIVES:
                    raise exceeded(self.where, "alternatives at one place", MAX_ALTERNATIVES)
            total, may_be_empty = total + max(count, 1), may_be_empty or empty
        if total > MAX_ALTERNATIVES:
            raise exceeded(self.where, "alternatives at one place", MAX_ALTERNATIVES)
        self._counts[id(alternatives)], self._empty[id(alternatives)] = total, may_be_empty


# -- fields of engines ------------------------------------------------------------------------------------------


def check_constraint_fields(fields: dict[str, Any]) -> None:
    """Check the fields by which engines take a constraint under names of their own.

    Raises:
        Refusal: 400, naming the field and the limit.
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
        raise exceeded(where, "choices", MAX_VALUES)
