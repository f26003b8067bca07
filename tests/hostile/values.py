"""Random values of an attacker: numbers at limits, odd texts, floods, trees, schemas, grammars, patterns."""

from __future__ import annotations

import json
from random import Random
from typing import Any


#: JSON that is written as it stands: `json` cannot write it.
class Raw(str):
    """JSON text."""


INTEGERS = (
    *(-1, 0, 1, 2, 7, 20, 21, 127, 128, 129, 255, 256, 1024, 1025, 65_536, 2**31 - 1, 2**31, 2**32),
    *(2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, -(2**31), -(2**31) - 1, -(2**63), -(2**63) - 1, -(10**40)),
)
FLOATS = (0.0, -0.0, 1e-320, 0.5, 1.0, 1.0000001, 2.0, -2.0, 2.5, 1e9, 1e38, 1e39, 1.7e308, -1.7e308)
RAW_NUMBERS = (
    Raw("NaN"),
    Raw("Infinity"),
    Raw("-Infinity"),
    Raw("1e999"),
    Raw("-1e999"),
    Raw("0." + "1" * 400),
    Raw("1" * 400),
)
TEXTS = (
    "", " ", "\0", "\n", "a", "hello", "null", "true", "1", "\u202eabc", "\ufeff", "\U0001f600" * 3, "e\u0301" * 9,
    "\ud7ff",
    "<s>", "</s>", "<|im_start|>system", "<|endoftext|>", "[INST]", "<tool_call>", "<think>", "<image>", "<__media__>",
    "{{ 7*7 }}", "{% for i in range(10**9) %}x{% endfor %}", "${7*7}", "%s%n%s", "' or 1=1 --",
    "../" * 8 + "etc/passwd",
    "a" * 1024, "a" * 1025, "\x1b[2J", "\r\nX-Injected: 1", "data: [DONE]\n\n", "\x7f\x80\x9f", "\u2028", "\\", '"',
)  # fmt: skip


def number(random: Random) -> Any:
    chosen = random.random()
    if chosen < 0.55:
        return random.choice(INTEGERS)
    return random.choice(FLOATS) if chosen < 0.85 else random.choice(RAW_NUMBERS)


def text(random: Random) -> str:
    if random.random() < 0.8:
        return random.choice(TEXTS)
    return "".join(chr(random.choice((random.randrange(1, 0xD800), random.randrange(32, 127)))) for _ in range(40))


def tree(random: Random, depth: int = 4) -> Any:
    """Any JSON value."""
    kind = random.randrange(9 if depth else 5)
    if kind < 2:
        return number(random)
    if kind == 2:
        return text(random)
    if kind < 5:
        return random.choice((None, True, False))
    if kind < 7:
        return [tree(random, depth - 1) for _ in range(random.randrange(4))]
    return {text(random)[:40]: tree(random, depth - 1) for _ in range(random.randrange(4))}


def deep(random: Random) -> Raw:
    levels = random.choice((50, 101, 600, 5_000, 100_000))
    opening, closing = random.choice((("[", "]"), ('{"a":', "}"), ('{"anyOf":[', "]}"), ('{"items":', "}")))
    return Raw(opening * levels + "1" + closing * levels)


def flood(random: Random) -> Any:
    """Much of one thing."""
    count = random.choice((17, 65, 300, 1025, 3_000, 20_000))
    item: Any = random.choice((1, "a", "stop", None, [], {}, -1, 2**40, 0.5))
    return random.choice(
        ([item] * count, [f"{item}{n}" for n in range(count)], {str(n): 1 for n in range(count)}, "a" * (count * 20))
    )


def any_value(random: Random) -> Any:
    chosen = random.random()
    if chosen < 0.35:
        return number(random)
    if chosen < 0.6:
        return text(random)
    if chosen < 0.8:
        return tree(random)
    return flood(random) if chosen < 0.95 else deep(random)


# -- constraints ------------------------------------------------------------------------------------------------

PATTERNS = (
    "^(a+)+$", "(a|a)*b", "(a|b|ab)*c", "(.*)*", "((((((((((a{9}){9}){9}){9}){9}){9}){9}){9}){9}){9})", "a{1000000000}",
    "a{0,2000}", "[\\s\\S]{0,1999}", "(" * 3000, "(" * 90 + "a" + ")" * 90, "[", "\\", "(?=a)b", "(?<!a)b", "\\1",
    "\\p{L}*",
    "(?i)(?:x?){500}x{500}", "^" + "a?" * 500 + "a" * 500 + "$", "[^\\x00-\\x7f]+", "|" * 300, "a|" * 3000, "$^",
    "\\d{4}-\\d{2}",
)  # fmt: skip


def pattern(random: Random) -> str:
    return random.choice(PATTERNS)


def grammar(random: Random) -> str:
    """A grammar in GBNF, EBNF or Lark, good, costly or broken."""
    n = random.choice((3, 12, 24, 60, 300, 3_000))
    return random.choice(
        (
            'root ::= "yes" | "no"',
            'root ::= "a"+',
            "root ::= [a-z ]{1,8}",
            "\n".join(
                ["root ::= r0 r0", *(f"r{k} ::= r{k + 1} r{k + 1} | r{k + 1}" for k in range(n)), f'r{n} ::= "a"']
            ),
            "\n".join(["root ::= r0", *(f"r{k} ::= r{k + 1} | r{k + 1}" for k in range(n)), f'r{n} ::= "a"']),
            'root ::= root "a" | "a"',
            "root ::= a\na ::= b\nb ::= a",
            'root ::= ("a" | "a" | root root)*',
            'root ::= "" *',
            'root ::= (("" | "a")*)*',
            f"root ::= {'(' * n}" + '"a"' + ")" * n,
            "(" * (n * 40),
            f'root ::= "a"{{{random.choice((1, 2_000, 2_001, 10**9))}}}',
            f"root ::= {' '.join(chr(34) + 'a' + chr(34) + '?' for _ in range(n))}",
            f"root ::= {' | '.join(chr(34) + str(k) + chr(34) for k in range(n))}",
            "root ::= [^\\x00-\\U0010FFFF]",
            'root ::= "\\U0010FFFF\\xZZ"',
            'root ::= "unterminated',
            "root ::= missing",
            "nothing here",
            "root ::=",
            "start: A+\nA: /a+b?/",
            "%llguidance {}\nstart: " + "a " * n,
            "root ::= " + "# comment\n" * n,
            "\0root ::= \0",
        )
    )


#: A larger schema is not repeated many times: the copies of each level multiply.
MANY_BYTES = 1000


def schema(random: Random, canary: str, depth: int = 3) -> Any:
    """A JSON schema, good, costly, contradictory or broken."""
    n = random.choice((2, 9, 120, 300, 600, 2_500))
    if depth and random.random() < 0.35:
        inner = schema(random, canary, depth - 1)
        return random.choice(
            (
                {"type": "object", "properties": {"a": inner, "b": inner}, "required": ["a"]},
                {"type": "array", "items": inner, "maxItems": random.choice((1, 9, 2_000, 10**9))},
                {"anyOf": [inner] * (random.choice((40, 300)) if len(encode(inner)) < MANY_BYTES else 2)},
                {"allOf": [inner, {"type": "object"}]},
                {"oneOf": [inner, {"not": inner}]},
                {"$defs": {"x": inner}, "$ref": "#/$defs/x"},
                {"if": inner, "then": inner, "else": inner},
            )
        )
    return random.choice(
        (
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": random.choice(("string", "integer", "boolean", "null", "number", "array", "object", "zzz"))},
            {"enum": [f"v{k}" for k in range(n)]},
            {"type": "object", "properties": {f"p{k}": {"type": "string"} for k in range(n)}},
            {"type": "string", "pattern": pattern(random)},
            {"type": "object", "patternProperties": {pattern(random): {}}},
            {"allOf": [{"type": "string", "pattern": f"^.*{k}.*$"} for k in range(random.choice((2, 8, 9, 299)))]},
            {"type": "string", "minLength": random.choice((1, 10, 10**6, 2**40)), "maxLength": 4},
            {"type": "string", "maxLength": random.choice((5, 10**6, 10**9))},
            {"type": "array", "minItems": random.choice((1, 100, 10**9)), "items": {"type": "integer"}},
            {"type": "array", "items": {"type": "array", "items": {}, "minItems": 99}, "minItems": 99},
            {
                "type": "integer",
                "minimum": random.choice((0, -(10**30), 10**18)),
                "maximum": random.choice((9, 10**30)),
            },
            {"type": "string", "format": random.choice(("date-time", "uuid", "email", "uri", "zzz", "ipv6"))},
            {"$ref": "#"},
            {"$ref": "#/$defs/missing"},
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
            {
                "$defs": {
                    f"d{k}": {"properties": {c: {"$ref": f"#/$defs/d{k + 1}"} for c in "abc"}} for k in range(24)
                },
                "$ref": "#/$defs/d0",
            },
            {"$ref": canary},
            {"$schema": canary, "$id": canary, "type": "object", "properties": {"a": {"$ref": "x.json"}}},
            {"$dynamicRef": canary},
            {"const": tree(random)},
            {"propertyNames": {"pattern": pattern(random)}, "minProperties": n},
            {"dependentSchemas": {"a": {"$ref": "#"}}},
            {"unevaluatedProperties": False, "contains": {}, "minContains": n},
            {"not": {}},
            {"x-guidance": {"whitespace_flexible": True, "lenient": True}, "type": "object"},
            {},
            True,
            False,
            None,
            [],
            "{",
            json.dumps({"type": "object"}),
            deep(random),
            tree(random),
        )
    )


def encode(value: Any) -> str:
    """JSON with `Raw` parts as they stand, and with escapes that a parser has to undo."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(name))}:{encode(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(encode, value)) + "]"
    return json.dumps(value)
