"""A schema of an answer is followed by llama.cpp's grammars, or refused by the keyword that they do not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.engines.dialect import Body
from xinference.engines.llama_cpp.answer_schemas import (
    applicable_schema,
    follow_any_object,
    follow_format,
    follow_guided,
    plain_pattern,
    schema_of_completion,
)
from xinference.engines.llama_cpp.field_rewrites import rewrite_native
from xinference.protocol.errors import Refusal

INTEGER = {"type": "integer"}
#: What a schema of a completion has in addition.
LENIENT = {"x-guidance": {"lenient": True, "coerce_one_of": True}}
#: A schema, and a part of the sentence that says what it has.
NOT_FOLLOWED: list[tuple[dict[str, Any], str]] = [
    ({"not": {}}, "apply not"),
    ({"if": {"const": 1}, "then": {"const": 2}}, "apply if"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"type": "array", "contains": INTEGER}, "contains"),
    ({"type": "integer", "multipleOf": 7}, "multipleOf"),
    ({"type": "object", "propertyNames": {"pattern": "^a$"}}, "propertyNames"),
    ({"type": "object", "patternProperties": {"^a": INTEGER}}, "patternProperties"),
    ({"type": "object", "minProperties": 2}, "minProperties"),
    ({"type": "object", "maxProperties": 0}, "maxProperties"),
    ({"type": "object", "properties": {}, "unevaluatedProperties": False}, "unevaluatedProperties"),
    ({"type": "number", "minimum": 0}, "minimum to numbers"),
    ({"type": ["integer", "number"], "maximum": 1}, "maximum to numbers"),
    ({"exclusiveMinimum": 0}, "exclusiveMinimum to numbers"),
    ({"type": "string", "pattern": "[0-9]+"}, "'[0-9]+'"),
    ({"type": "string", "pattern": "^a$", "minLength": 3}, "a length beside a pattern"),
    ({"type": "array", "prefixItems": [INTEGER], "items": INTEGER}, "items beside prefixItems"),
    ({"type": "object", "required": ["a"]}, "required to 'a'"),
    ({"type": "object", "properties": {}, "required": [{}]}, "required to '{}'"),
    ({"allOf": [{"type": "string"}, {"minLength": 3}]}, "this allOf"),
    ({"allOf": [{"properties": {"a": INTEGER}}, {"$ref": "#/$defs/a"}], "additionalProperties": False}, "this allOf"),
    ({"type": "object", "properties": {"a": INTEGER}, "anyOf": [{"required": ["a"]}]}, "anyOf or oneOf"),
]


@in_one_test(("schema", "said"), NOT_FOLLOWED)
@in_one_test("depth", [0, 1, 2])
def test_a_keyword_that_the_grammars_pass_over_is_refused_at_every_depth(
    schema: dict[str, Any], said: str, depth: int
) -> None:
    for _ in range(depth):
        schema = {"type": "object", "properties": {"x": {"anyOf": [{"type": "null"}, schema]}}, "required": ["x"]}
    with pytest.raises(Refusal) as caught:
        applicable_schema(schema, "w")
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_constraint", "w")
    assert said in caught.value.cause


@in_one_test(
    "schema",
    [
        {"type": "object", "properties": {"a": INTEGER}, "required": ["a"], "additionalProperties": False},
        {"type": "integer", "minimum": 3, "exclusiveMaximum": 9},
        {"type": ["integer", "null"], "minimum": 3},
        {"type": "string", "format": "email", "title": "t", "default": None, "examples": ["a"]},
        {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1, "uniqueItems": False},
        {"allOf": [{"properties": {"a": INTEGER}}, {"$ref": "#/$defs/a"}]},
        {"anyOf": [{"type": "string", "minLength": 2}, {"type": "null"}], "description": "d"},
        {"type": "string", "pattern": "^a$", "minLength": 0},
        {"type": "integer", "multipleOf": 1},
        {"type": "object", "properties": {"a": INTEGER}, "unevaluatedProperties": {}},
        {"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
        {"properties": {"not": INTEGER, "if": INTEGER, "pattern": {"type": "string"}}},
    ],
)
def test_a_schema_that_is_followed_is_left_as_it_is(schema: dict[str, Any]) -> None:
    assert applicable_schema(schema, "w") == schema


def test_a_part_alone_in_an_allof_takes_its_place() -> None:
    wrapped = {"properties": {"a": {"allOf": [{"$ref": "#/$defs/a"}], "description": "d"}}}
    assert applicable_schema(wrapped, "w") == {"properties": {"a": {"description": "d", "$ref": "#/$defs/a"}}}


@in_one_test(
    ("pattern", "plain"),
    [
        (r"^\d{3}$", "^[0-9]{3}$"),
        (r"^[\w-]+@\w+\.com$", r"^[A-Za-z0-9_-]+@[A-Za-z0-9_]+\.com$"),
        (r"^a\s?b$", "^a[ ]?b$"),
        (r"^(?:a|b)\$$", r"^(?:a|b)\$$"),
        (r"^[(?=]$", "^[(?=]$"),
        ("^(?!a)b$", None),
        (r"^\bab$", None),
        (r"^\p{L}$", None),
        (r"^(a)\1$", None),
        (r"^a\$", None),
        ("a$", None),
        ("^a", None),
        ("^[$", None),
    ],
)
def test_a_pattern_has_no_classes_that_the_grammars_take_as_letters(pattern: str, plain: str | None) -> None:
    assert plain_pattern(pattern) == plain


@pytest.mark.parametrize("strict", [{}, {"strict": False}, {"strict": None}])
@pytest.mark.parametrize("schema", [{"not": {}}, {"type": "number", "minimum": 0, "maximum": 1}])
def test_a_schema_that_need_not_be_followed_strictly_is_passed_as_it_is(schema: Body, strict: Body) -> None:
    form = {"type": "json_schema", "json_schema": {**strict, "schema": schema}}
    body: Body = {"messages": [], "response_format": form}
    follow_format(body, form)
    assert body["response_format"] == form


def test_a_strict_schema_with_a_keyword_that_would_be_passed_over_is_refused() -> None:
    form = {"type": "json_schema", "json_schema": {"strict": True, "schema": {"type": "number", "minimum": 0}}}
    with pytest.raises(Refusal, match="minimum"):
        follow_format({"messages": [], "response_format": form}, form)


@in_one_test(
    ("form", "sent"),
    [
        ({"type": "json_object"}, {"json_schema": {"type": "object"} | LENIENT}),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": INTEGER}}, {"json_schema": INTEGER | LENIENT}),
        ({"type": "text"}, {}),
    ],
)
def test_a_completion_gets_its_format_in_the_field_that_llama_cpp_reads(form: Body, sent: Body) -> None:
    body: Body = {"prompt": "a", "response_format": form}
    follow_format(body, form)
    assert body == {"prompt": "a", **sent}


def test_any_object_of_a_completion_is_a_schema_too() -> None:
    body: Body = {"prompt": "a", "guided_json_object": True}
    follow_any_object(body, True)
    assert body == {"prompt": "a", "json_schema": {"type": "object"} | LENIENT}


@in_one_test("name", ["response_format", "guided_json", "json_schema"])
@in_one_test(
    ("schema", "said"),
    [
        ({"type": "text"}, "schema.type: it is one of string, number"),
        ({"type": []}, "schema.type"),
        ({"type": "object", "properties": {"a": {"type": "int"}}}, "schema.properties.a.type"),
        ({"type": "object", "properties": [1]}, "schema.properties: it is an object, not [1]"),
        ({"type": "object", "required": "a"}, "schema.required: it is a list of names"),
        ({"type": "object", "additionalProperties": "no"}, "schema.additionalProperties: it is an object"),
        ({"type": "array", "items": 1}, "schema.items"),
        ({"anyOf": []}, "schema.anyOf: it is a list with values"),
        ({"anyOf": [{"type": "string", "minLength": "x"}]}, "schema.anyOf[0].minLength"),
        ({"enum": []}, "schema.enum"),
        ({"type": "integer", "minimum": "x"}, "schema.minimum: it is a number"),
        ({"type": "string", "format": 1}, "schema.format"),
        ({"type": "string", "pattern": "["}, "schema.pattern: it is a regular expression, not '['"),
        ({"type": "string", "pattern": "^(?=a)b$"}, "without assertions and references"),
        ({"$ref": "#/$defs/a"}, "schema.$ref: there is no '#/$defs/a'"),
    ],
)
def test_a_schema_that_a_completion_cannot_follow_is_refused_with_its_place(name: str, schema: Body, said: str) -> None:
    where = "response_format.json_schema.schema" if name == "response_format" else name
    form = {"type": "json_schema", "json_schema": {"schema": schema}} if name == "response_format" else schema
    body: Body = {"prompt": "a", name: form}
    steps: dict[str, Callable[[], Any]] = {
        "response_format": lambda: follow_format(body, form),
        "guided_json": lambda: follow_guided(body, form),
        "json_schema": lambda: rewrite_native(body, False),
    }
    with pytest.raises(Refusal) as caught:
        steps[name]()
    assert said.replace("schema", where) in caught.value.cause
    assert (caught.value.status, caught.value.param) == (400, name)


@in_one_test(
    "schema",
    [
        {}, INTEGER, {"type": ["string", "null"], "maxLength": 5.0}, {"properties": {"a": True}, "required": ["a"]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#"}}}, {"type": "string", "pattern": "^(?:a|[b(?=]){2}$"},
        {"type": "array", "prefixItems": [INTEGER], "items": False}, {"x-other": 1, "title": 5, "not": {"type": "x"}},
        {"type": "number", "exclusiveMinimum": True, "multipleOf": 0.5}, {"const": 1, "default": None},
    ],
)  # fmt: skip
def test_a_complete_schema_of_a_completion_is_passed_on(schema: Body) -> None:
    assert schema_of_completion(schema, "s") == schema | LENIENT


def test_a_chat_gets_the_schema_of_llama_cpp_unchanged_and_a_completion_that_of_its_library() -> None:
    assert rewrite_native({"json_schema": INTEGER}, True) == {}
    assert rewrite_native({"json_schema": INTEGER}, False) == {"json_schema": INTEGER | LENIENT}
    for is_chat in (True, False):
        with pytest.raises(Refusal, match=r"json_schema: llama\.cpp cannot apply not"):
            rewrite_native({"json_schema": {"not": {}}}, is_chat)
