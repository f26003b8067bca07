"""The field that a refusal names if an engine refuses a schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.engines.dialect import EngineError
from xinference.engines.llama_cpp.dialect import DIALECT
from xinference.engines.vllm.dialect import DIALECT as VLLM
from xinference.protocol.errors import Refusal

GOOD = {"type": "object", "properties": {"a": {"type": "string"}}}
#: Errors of llama.cpp about a schema, and about a value whose type it does not expect.
BAD_SCHEMA = "JSON schema conversion failed:\nUnrecognized schema: {}"
BAD_TYPE = "[json.exception.type_error.302] type must be array, but is number"


def explained(message: str, **body: Any) -> Refusal:
    request = json.dumps({"model": "m", "messages": [], **body}).encode()
    refusal = DIALECT.explain(EngineError({"message": message, "code": 400}, message, "messages", None, request))
    assert refusal is not None and refusal.status == 400
    return refusal


def tool(schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


@in_one_test(
    ("body", "param", "said"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "text"}}}},
            "response_format",
            "response_format.json_schema.schema.type: it is one of string, number",
        ),
        (
            {"response_format": {"type": "json_object", "schema": {"properties": {"a": 5}}}},
            "response_format",
            "response_format.schema.properties.a: it is an object, not 5",
        ),
        ({"json_schema": {"enum": "a"}}, "json_schema", "json_schema.enum: it is a list"),
        (
            {"tools": [tool(GOOD), tool({"properties": {"a": {"minLength": "5"}}})]},
            "tools[1]",
            "tools[1].function.parameters.properties.a.minLength: it is a number from 0 on, not '5'",
        ),
        (
            {"tools": [{"name": "f", "input_schema": {"required": "a"}}]},
            "tools[0]",
            "tools[0].input_schema.required: it is a list of names",
        ),
        ({"tools": [tool({"$ref": "#/nowhere"})]}, "tools[0]", "tools[0].function.parameters.$ref: there is no"),
    ],
)
@in_one_test("message", [BAD_SCHEMA, BAD_TYPE])
def test_a_schema_with_a_wrong_value_is_refused_by_its_field(
    body: dict[str, Any], param: str, said: str, message: str
) -> None:
    refusal = explained(message, **body)
    assert (refusal.code, refusal.param) == ("invalid_constraint", param)
    assert said in refusal.cause


def test_the_only_schema_of_a_request_is_named_with_the_engines_words() -> None:
    refusal = explained(BAD_SCHEMA, tools=[tool({"type": "object", "properties": {"a": {"pattern": "^(?=a)$"}}})])
    assert refusal.param == "tools[0]"
    assert refusal.cause == "tools[0].function.parameters: the JSON schema is not valid: Unrecognized schema: {}"


def test_none_of_two_schemas_is_named_without_a_sign() -> None:
    refusal = explained(BAD_SCHEMA, tools=[tool(GOOD), tool(GOOD)])
    assert refusal.param is None and refusal.cause.startswith("A JSON schema of the request is not valid")


@pytest.mark.parametrize("request_body", [b"", b"[", b"[]", b'{"tools": {"a": 1}, "response_format": 5}'])
def test_a_request_that_is_not_known_has_the_engines_words(request_body: bytes) -> None:
    for message, code in ((BAD_SCHEMA, "invalid_constraint"), (BAD_TYPE, "invalid_request")):
        refusal = DIALECT.explain(EngineError({"message": message}, message, "messages", None, request_body))
        assert refusal is not None and (refusal.code, refusal.param) == (code, None)


def test_vllm_refuses_a_schema_by_its_field_without_a_place_in_its_source() -> None:
    fault = "Cannot find field nowhere in #/nowhere"
    message = f"Failed to transform json schema into a grammar: [11:18:33] /src/json_schema.cc:4950: {fault}"
    for body, param in (
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"a": 1}}}}, "response_format"),
        ({"structured_outputs": {"json": {"a": 1}}}, "guided_json"),
        ({}, None),
    ):
        request = json.dumps(body).encode()
        refusal = VLLM.explain(EngineError({"message": message}, message, "messages", 100, request))
        assert refusal is not None
        assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_constraint", param)
        assert refusal.cause.endswith(f"is not valid: {fault}")
