from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.engines.dialects import explained
from tests.gateway.harness import CHAT
from tests.gateway.test_engine_answers import ask
from tests.support.cases import in_one_test
from xinference.engines.dialect import EngineError
from xinference.engines.llama_cpp.dialect import DIALECT
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.request_check import check

TOO_LONG = {
    "code": 400,
    "message": "request (8193 tokens) exceeds the available context size (8192 tokens), try increasing it",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 8193,
    "n_ctx": 8192,
}


def test_a_too_long_prompts_error_names_both_numbers() -> None:
    refusal = explained("llama.cpp", TOO_LONG)
    assert (refusal.status, refusal.code, refusal.param) == (400, "context_length_exceeded", "messages")
    wanted = "This model's maximum context length is 8192 tokens, but the prompt has 8193 tokens. Shorten it."
    assert refusal.cause == wanted


def test_the_models_own_context_wins_over_the_engines() -> None:
    refusal = explained("llama.cpp", TOO_LONG, context_length=4096, prompt_field="prompt")
    assert "4096 tokens" in refusal.cause
    assert "8192" not in refusal.cause
    assert refusal.param == "prompt"


def test_an_embedding_input_over_the_batch_is_the_clients_fault() -> None:
    text = "input (600 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
    refusal = explained("llama.cpp", {"code": 500, "message": text, "type": "server_error"}, prompt_field="input")
    assert (refusal.status, refusal.code, refusal.param) == (400, "context_length_exceeded", "input")
    assert "512" in refusal.cause
    assert "600" in refusal.cause


def test_what_a_chat_template_refuses_is_a_400_in_the_templates_own_words() -> None:
    said = "Error: Jinja Exception: Conversation roles must alternate"
    refusal = explained("llama.cpp", {"code": 500, "message": f"While executing CallExpression …\n{said}"})
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_messages", "messages")
    assert refusal.cause.endswith("refuses the request: Conversation roles must alternate")


def test_a_token_id_that_the_vocabulary_has_not_is_the_clients_mistake() -> None:
    said = "vector::_M_range_check: __n (which is 18446744073709551615) >= this->size() (which is 49152)"
    error = {"code": 500, "message": said, "type": "server_error"}
    refusal = explained("llama.cpp", error, prompt_field="tokens")
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_token", "tokens")
    assert "49152 tokens" in refusal.cause


def test_an_image_for_a_model_without_a_projector_is_a_400_that_says_so() -> None:
    refusal = explained("llama.cpp", {"code": 500, "message": "image input is not supported - hint: …"})
    assert (refusal.status, refusal.code, refusal.param) == (400, "unsupported_content", "messages")
    assert "has no multimodal projector" in refusal.cause


@pytest.mark.process
@pytest.mark.parametrize("vector", [[0.5, 1.0], base64.b64encode(bytes(8)).decode()])
async def test_dimensions_that_llama_cpp_does_not_give_are_a_400_that_names_those_it_gives(vector: Any) -> None:
    says = {"data": [{"embedding": vector}]}
    right = await ask("/v1/embeddings", {"model": "m", "input": "a", "dimensions": 2}, says)
    assert right == (200, says)
    status, answer = await ask("/v1/embeddings", {"model": "m", "input": "a", "dimensions": 3}, says)
    assert (status, answer["error"]["param"]) == (400, "dimensions") and "2 numbers" in answer["detail"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_is_the_reason_where_one_is_named(stream: bool) -> None:
    body = {"model": "m", "max_tokens": 1, "messages": CHAT["messages"], "stop_sequences": ["x"], "stream": stream}
    exchange = DIALECT.exchange(check(DATA_PATHS["/v1/messages"].decoder, json.dumps(body).encode()), "m")
    for rewrite in (exchange.answer, exchange.events):
        assert rewrite is not None
        by_stop, by_itself = (b'{"stop_reason":"end_turn","stop_sequence":%b}' % name for name in (b'"x"', b"null"))
        assert rewrite(by_stop) == b'{"stop_reason":"stop_sequence","stop_sequence":"x"}'
        assert rewrite(by_itself) == by_itself


@pytest.mark.parametrize(
    "message",
    [
        "Failed to parse messages: [json.exception.type_error.302] type must be string, but is array",
        "Failed to parse tools: Expected 'tools' to be an array, got 7; tools = 7",
        "Failed to parse messages: Missing tool call type: {}",
        "Unknown reasoning format: zzz",
    ],
)
def test_a_value_that_only_llama_cpp_reads_is_the_clients_mistake(message: str) -> None:
    refusal = explained("llama.cpp", {"message": message, "code": 500, "type": "server_error"})
    assert (refusal.status, refusal.code) == (400, "invalid_request") and message in refusal.cause


@in_one_test(
    "message",
    [
        "Cannot use both json_schema and grammar",
        "Cannot use custom grammar constraints with tools.",
        "Failed to load image or audio file",
        "Error: no triggers set for lazy grammar!",
        "got exception: Unexpected empty grammar stack after accepting piece: a (30)",
        "Invalid tool_choice: zzz",
        '"prompt" must be a string',
        "'tools' must be an array of objects",
    ],
)
def test_a_request_that_llama_cpp_finds_wrong_late_is_the_clients_mistake(message: str) -> None:
    refusal = explained("llama.cpp", {"message": message, "code": 500, "type": "server_error"})
    assert (refusal.status, refusal.code) == (400, "invalid_request")
    assert message.removeprefix("got exception: ") in refusal.cause


@in_one_test(
    ("message", "said"),
    [
        (
            "Unable to generate parser for this template. Automatic parser generation failed: JSON schema error at #: "
            "cannot resolve $ref #/nowhere, nowhere not found",
            "not valid: cannot resolve $ref #/nowhere",
        ),
        (
            "JSON schema conversion failed:\nPattern must start with '^' and end with '$'",
            "not valid: Pattern must start",
        ),
        ("Failed to initialize samplers: std::exception", "schema or a forced call of a tool"),
    ],
)
@in_one_test("kind", ["invalid_request_error", "server_error"])
def test_a_constraint_that_llama_cpp_cannot_apply_is_named(message: str, said: str, kind: str) -> None:
    refusal = explained("llama.cpp", {"message": message, "code": 400, "type": kind})
    assert (refusal.status, refusal.code) == (400, "invalid_constraint") and said in refusal.cause


@in_one_test(
    ("message", "status", "code"),
    [
        ("Prompt contains invalid tokens", 400, "invalid_token"),
        ("Input content cannot be empty", 400, "invalid_request"),
        ("Cannot continue an assistant message that contains tool calls.", 400, "invalid_messages"),
        ("The model produced output that does not match the expected peg-native format", 502, "engine_error"),
        ("image input is not supported - hint: you may need to provide the mmproj", 400, "unsupported_content"),
        ("unsupported content[].type", 400, "unsupported_content"),
        ("Infill is not supported by this model: prefix token is missing.", 400, "unsupported_field"),
        ("logprobs is not supported with tools + stream", 400, "unsupported_field"),
        ("Cannot set both add_generation_prompt and continue_final_message to true.", 400, "invalid_request"),
    ],
)
def test_an_error_has_a_code_and_none_of_llama_cpps_own_words(message: str, status: int, code: str) -> None:
    refusal = explained("llama.cpp", {"message": message, "code": 500, "type": "server_error"})
    assert (refusal.status, refusal.code) == (status, code)
    assert message not in refusal.cause and "mmproj" not in refusal.cause


def test_token_ids_for_a_model_with_a_projector_are_refused_by_name() -> None:
    message = "[json.exception.type_error.302] type must be string, but is array"
    refusal = DIALECT.explain(EngineError({"message": message}, message, "prompt", None))
    assert refusal is not None and (refusal.status, refusal.param) == (400, "prompt")
    assert "token ids" in refusal.cause and "json" not in refusal.cause


def test_an_error_about_a_field_names_the_field() -> None:
    message = "Field 'n_keep': Value must be between -1 <= value <= 2147483647, but got -5"
    refusal = explained("llama.cpp", {"message": message, "code": 400, "type": "invalid_request_error"})
    assert (refusal.status, refusal.param) == (400, "n_keep")
    assert refusal.cause == "n_keep: value must be between -1 <= value <= 2147483647, but got -5."


@pytest.mark.parametrize(
    "message",
    ["Compute error.", "Invalid input batch.", "failed to process mtmd chunk", "got exception: std::bad_alloc"],
)
def test_a_fault_of_llama_cpp_stays_one(message: str) -> None:
    error = {"message": message, "code": 500, "type": "server_error"}
    assert DIALECT.explain(EngineError(error, message, "messages", None)) is None
