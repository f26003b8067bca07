"""What constrains an answer has limits, and what no engine's compiler survives is refused by name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.cases import in_one_test
from tests.support.examples import examples
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.constraint_fields import check_constraint_fields
from xinference.protocol.constraint_limits import (
    MAX_ALTERNATIVES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_PARTS,
    MAX_REPEATS,
    MAX_VALUES,
)
from xinference.protocol.errors import Refusal
from xinference.protocol.grammar_limits import check_grammar
from xinference.protocol.regex_limits import check_regex
from xinference.protocol.request_check import check

MESSAGES = [{"role": "user", "content": "hi"}]


def given_with(**fields: Any) -> None:
    body = {"model": "m", "messages": MESSAGES, "max_tokens": 1, **fields}
    path = "/v1/messages" if "output_format" in fields else "/v1/chat/completions"
    check(DATA_PATHS[path].decoder, json.dumps(body).encode())


def refused(ask: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        ask()
    assert caught.value.status == 400
    return caught.value


def as_format(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


def as_tool(schema: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}


def as_guided(schema: Any) -> dict[str, Any]:
    return {"guided_json": schema}


def as_text(schema: Any) -> dict[str, Any]:
    return {"guided_json": json.dumps(schema)}


def as_anthropic(schema: Any) -> dict[str, Any]:
    return {"output_format": {"type": "json_schema", "schema": schema}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def chain(part: Callable[[str], dict[str, Any]], levels: int) -> dict[str, Any]:
    """Definitions of which each is made of the next."""
    definitions: dict[str, Any] = {f"d{n}": part(f"#/$defs/d{n + 1}") for n in range(levels)}
    return {"$defs": definitions | {f"d{levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def twice(reference: str) -> dict[str, Any]:
    return {"allOf": [{"$ref": reference}, {"$ref": reference}]}


def either(reference: str) -> dict[str, Any]:
    return {"anyOf": [{"$ref": reference}, {"type": "integer"}], "allOf": [{"$ref": reference}]}


OBJECTS = [{"type": "object", "properties": {f"p{n}": {"type": "string"}}} for n in range(2000)]
COMPLEX: dict[str, Any] = {
    "an enum of 200,000": {"enum": [f"v{n}" for n in range(200_000)]},
    "an enum of 3,000 short values": {"enum": list(range(3000))},
    "3,000 optional properties": {"properties": {f"p{n}": {} for n in range(3000)}},
    "300 optional properties": {"properties": {f"p{n}": {} for n in range(300)}},
    "2,000 alternatives": {"anyOf": OBJECTS},
    "300 alternatives": {"oneOf": OBJECTS[:300]},
    "12,000 properties in many objects": {
        "required": [f"o{n}" for n in range(60)],
        "properties": {f"o{n}": {"properties": {f"p{m}": {} for m in range(200)}} for n in range(60)},
    },
    "references that lead to 1,200 others": chain(lambda reference: {"$ref": reference}, 1200),
    "299 patterns that hold at once": {"type": "string", "allOf": [{"pattern": f"^.*a{n}.*$"} for n in range(299)]},
    "16 patterns that hold at once": {"type": "string", "allOf": [{"pattern": f"a{n}"} for n in range(16)]},
    "patterns at once by references": {
        "$defs": {"p": {"pattern": "a.*b"}},
        "allOf": [{"$ref": "#/$defs/p"}, *({"allOf": [{"$ref": "#/$defs/p"}]} for _ in range(9))],
    },
    "200 levels": nested(200),
    "60,000 levels": None,
    "references that double": chain(twice, 24),
    "alternatives that double": chain(either, 24),
    "alternatives of each with each": {"allOf": [{"anyOf": [OBJECTS[n], OBJECTS[-n]]} for n in range(20)]},
    "a repetition of repetitions": {"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"},
    "a long repetition": {"type": "string", "pattern": "a{1,1000000}"},
    "a length of millions": {"type": "string", "maxLength": 50_000_000},
    "nested parentheses": {"type": "string", "pattern": "(" * 5000 + ")" * 5000},
}


@pytest.mark.thorough
@in_one_test("form", [as_format, as_tool, as_guided, as_text, as_anthropic])
@in_one_test("name", [name for name, schema in COMPLEX.items() if schema is not None])
def test_a_schema_that_would_occupy_an_engine_is_refused_in_every_field(name: str, form: Any) -> None:
    refusal = refused(lambda: given_with(**form(COMPLEX[name])))
    assert refusal.code == "constraint_too_complex"
    assert str(refusal.param).split("[")[0].split(".")[0] in {
        "response_format",
        "tools",
        "guided_json",
        "output_format",
    }
    assert "limit" in refusal.cause


def test_a_schema_in_text_that_is_nested_without_end_is_refused() -> None:
    assert refused(lambda: given_with(guided_json="[" * 60_000)).code == "constraint_too_complex"


@in_one_test(
    ("schema", "named"),
    [
        ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength 5 is greater than maxLength 2"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 5, "maxItems": 2}, "minItems"),
        ({"type": "object", "minProperties": 3, "maxProperties": 1}, "minProperties"),
        ({"type": "integer", "minimum": 7, "maximum": 3}, "minimum"),
        ({"properties": {"a": {"items": {"anyOf": [{"minLength": 5, "maxLength": 2}]}}}}, "minLength"),
        ({"type": "string", "pattern": "a{5,2}"}, "{5,2}"),
        ({"type": "string", "minLength": -1}, "negative"),
    ],
)
@in_one_test("form", [as_format, as_tool, as_guided, as_text])
def test_a_minimum_above_its_maximum_is_refused(schema: Any, named: str, form: Any) -> None:
    refusal = refused(lambda: given_with(**form(schema)))
    assert refusal.code == "invalid_constraint" and named in refusal.cause


@in_one_test("name", ["$ref", "$dynamicRef", "$recursiveRef"])
@in_one_test("form", [as_format, as_tool, as_guided, as_text])
def test_a_schema_is_never_fetched(name: str, form: Any) -> None:
    refusal = refused(lambda: given_with(**form({name: "https://a.b/schema.json"})))
    assert refusal.code == "media_address" and name in refusal.cause


@pytest.mark.parametrize("fields", [{"response_format": 7}, {"response_format": "json"}, {"guided_json": [1]}])
def test_what_is_no_object_is_refused_by_name(fields: dict[str, Any]) -> None:
    assert refused(lambda: given_with(**fields)).param in fields


PERSON = {
    "$defs": {"Address": {"type": "object", "properties": {"street": {"type": "string", "maxLength": 100}}}},
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[A-Z][a-z]+( [A-Z][a-z]+){0,5}$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "country": {"enum": [f"c{n}" for n in range(249)]},
        "addresses": {"type": "array", "items": {"$ref": "#/$defs/Address"}, "minItems": 1, "maxItems": 5},
        "parent": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        "date": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
        "default": {"type": "number", "default": {"minLength": "text"}},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@in_one_test("form", [as_format, as_tool, as_guided, as_text, as_anthropic])
@in_one_test(
    "schema", [PERSON, {}, {"type": "object"}, nested(20), {"enum": list(range(MAX_VALUES))}, {"properties": {}}]
)
def test_an_ordinary_schema_passes(schema: Any, form: Any) -> None:
    given_with(**form(schema))


def test_an_agents_hundred_tools_pass_and_a_thousand_do_not() -> None:
    tool = as_tool(PERSON | {"description": "d" * 400})["tools"][0]
    given_with(tools=[tool] * 30)
    plain = as_tool({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(10)}})["tools"][0]
    given_with(tools=[plain] * 100)
    assert refused(lambda: given_with(tools=[plain] * 1000)).param == "tools"


def test_tools_are_counted_together() -> None:
    plain = as_tool({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(200)}})["tools"][0]
    assert refused(lambda: given_with(tools=[plain] * 100)).code == "constraint_too_complex"


# -- grammars ---------------------------------------------------------------------------------------------------


def doubling(rules: int) -> str:
    lines = [f"r{n} ::= r{n + 1} r{n + 1} | r{n + 1}" for n in range(rules)]
    return "\n".join(["root ::= r0 r0", *lines, f'r{rules} ::= "a"'])


GRAMMARS = {
    "rules that double": doubling(24),
    "rules that double behind an optional one": doubling(24).replace("root ::=", 'root ::= " "?'),
    "rules that triple": "\n".join(
        ["root ::= x0", *(f"x{n} ::= x{n + 1} | x{n + 1} x{n + 1} | x{n + 1} [ab]" for n in range(12)), 'x12 ::= "a"']
    ),
    "200,000 parentheses": "root ::= " + "(" * 200_000,
    "60,000 parentheses": "root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000,
    "200 parentheses": "root ::= " + "(" * 200 + '"a"' + ")" * 200,
    "3,000 rules": "\n".join(["root ::= r0", *(f'r{n} ::= "a"' for n in range(3000))]),
    "1,000 alternatives at one place": "root ::= " + " | ".join(f'"v{n}"' for n in range(1000)),
    "a long repetition": 'root ::= "a"{1,100000}',
    "an endless number": 'root ::= "a"{' + "9" * 40 + "}",
    "many repetitions": "root ::= " + ' "a"{1,1900}' * 30,
}


@in_one_test("name", GRAMMARS)
@in_one_test("field", ["guided_grammar", "grammar", "ebnf", "structured_outputs"])
def test_a_grammar_that_would_end_an_engine_is_refused(name: str, field: str) -> None:
    grammar = GRAMMARS[name]
    value = {"grammar": grammar} if field == "structured_outputs" else grammar
    ask = (
        (lambda: given_with(guided_grammar=grammar))
        if field == "guided_grammar"
        else (lambda: check_constraint_fields({field: value}))
    )
    refusal = refused(ask)
    assert refusal.code == "constraint_too_complex" and "limit" in refusal.cause
    assert str(refusal.param).startswith(field)


@pytest.mark.parametrize("grammar", ['root ::= "a"{5,2}', "root ::= [a-z]{3,1}", 'root ::= ("a" | "b"){2, 1}'])
def test_a_repetition_with_its_minimum_above_its_maximum_is_refused(grammar: str) -> None:
    assert refused(lambda: check_grammar(grammar, "grammar")).code == "invalid_constraint"


def test_a_grammar_of_another_form_is_refused() -> None:
    assert refused(lambda: check_grammar('%llguidance {}\nstart: "a"', "grammar")).code == "unsupported_field"


JSON_GRAMMAR = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
# optional space
ws ::= | " " | "\n" [ \t]{0,20}
"""
CHESS = r"""
root    ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move    ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn    ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle  ::= "O-O" "-O"?
"""
ARITHMETIC = r"""
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] ws term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""
LARK = 'start: greeting " " name\ngreeting: "hello" | "hi"\nname: /[a-z]+/\n'


@in_one_test("grammar", [JSON_GRAMMAR, CHESS, ARITHMETIC, LARK, 'root ::= "yes" | "no"', "", "root ::="])
def test_an_ordinary_grammar_passes(grammar: str) -> None:
    check_grammar(grammar, "guided_grammar")


# -- regular expressions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "regex", ["(" * 200, "a{1,100000}", "((a{1,100}){1,100}){1,100}", "(a{500}b{500}){900}", "a" * (MAX_BYTES + 1)]
)
def test_a_regular_expression_that_explodes_is_refused(regex: str) -> None:
    assert refused(lambda: given_with(guided_regex=regex)).code == "constraint_too_complex"


@in_one_test("regex", [r"\d{3}-\d{4}", r"[^\]]+\{2,1\}", "(yes|no)", r"[{5,2}]*", "a{2,}", "", ")"])
def test_an_ordinary_regular_expression_passes(regex: str) -> None:
    given_with(guided_regex=regex)


def test_choices_are_bounded() -> None:
    given_with(guided_choice=["a"] * MAX_VALUES)
    for choices in (["a"] * (MAX_VALUES + 1), ["a" * 1025], ["a" * 1024] * 100):
        refused(partial(given_with, guided_choice=choices))


def test_the_checks_themselves_are_bounded() -> None:
    """The largest constraints that the checks take cost less than what an engine makes of them."""
    started = time.process_time()
    check_regex("(a|b)" * 3000, "r")
    check_grammar("\n".join(f'r{n} ::= r{n + 1} "a" | "b"' for n in range(MAX_ALTERNATIVES - 2)), "g")
    given_with(**as_format({"properties": {f"p{n}": {"type": "string"} for n in range(MAX_ALTERNATIVES)}}))
    assert time.process_time() - started < 5
    assert MAX_DEPTH < MAX_ALTERNATIVES < MAX_PARTS <= MAX_REPEATS


TEXTS = st.text('ab"|(){}[]*+?.:=,019 \n\\-#', max_size=60)
KEYWORDS = st.sampled_from(
    ["type", "properties", "items", "enum", "anyOf", "allOf", "$ref", "pattern", "minLength", "required", "$defs"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | TEXTS | st.sampled_from(["#", "#/$defs/a", "string", "object"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS | TEXTS, inner, max_size=4),
    max_leaves=15,
)


@given(value=VALUES, text=TEXTS, form=st.sampled_from([as_format, as_tool, as_guided, as_text, as_anthropic]))
@settings(max_examples=examples(300))
def test_random_constraints_pass_or_are_refused(value: Any, text: str, form: Any) -> None:
    asks: list[Callable[[], object]] = [
        lambda: given_with(**form(value)),
        lambda: given_with(guided_grammar=text, guided_regex=text),
        lambda: check_constraint_fields({"grammar": text, "json_schema": value, "structured_outputs": {"json": value}}),
        lambda: check_grammar(f"root ::= {text}\na ::= {text}", "g"),
    ]
    for ask in asks:
        try:
            ask()
        except Refusal as refusal:
            assert refusal.status == 400
