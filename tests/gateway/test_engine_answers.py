from __future__ import annotations

import json
from typing import Any

import pytest

from xinference.gateway.engine_answers import normalise
from xinference.protocol.errors import Refusal, anthropic_error, openai_error


def read(status: int, answer: Any, **options: Any) -> Refusal:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return normalise(status, body, **{"prompt_field": "messages", **options})


LLAMA_TOO_LONG = {
    "error": {
        "code": 400,
        "message": "request (8193 tokens) exceeds the available context size (8192 tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 8193,
        "n_ctx": 8192,
    }
}


def test_llama_cpps_too_long_prompt_names_both_numbers() -> None:
    refusal = read(400, LLAMA_TOO_LONG)
    assert (refusal.status, refusal.code, refusal.param) == (400, "context_length_exceeded", "messages")
    wanted = "This model's maximum context length is 8192 tokens, but the prompt has 8193 tokens. Shorten it."
    assert refusal.cause == wanted


def test_the_models_own_context_wins_over_the_engines() -> None:
    refusal = read(400, LLAMA_TOO_LONG, context_length=4096, prompt_field="prompt")
    assert "4096 tokens" in refusal.cause
    assert "8192" not in refusal.cause
    assert refusal.param == "prompt"


def test_vllms_too_long_prompt_keeps_its_words_and_gets_the_code() -> None:
    text = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."
    refusal = read(400, {"error": {"message": text, "type": "BadRequestError", "param": None, "code": 400}})
    assert (refusal.code, refusal.cause) == ("context_length_exceeded", text)


VLLM_SAYS = (
    "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4100 input tokens, "
    "which exceeds this limit even without any output tokens."
)


@pytest.mark.parametrize(
    ("text", "given"),
    [
        (VLLM_SAYS, "at least 4100"),
        ("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", "4096"),
        ("The input (4100 tokens) is longer than the model's context length (4096 tokens).", "4100"),
    ],
)
def test_what_vllm_and_sglang_say_of_a_long_prompt_names_the_promised_length(text: str, given: str) -> None:
    refusal = read(400, {"error": {"message": text, "code": 400}}, context_length=4095)
    assert (refusal.code, refusal.param) == ("context_length_exceeded", "messages")
    assert refusal.cause.startswith("This model's maximum context length is 4095 tokens")
    assert f"the prompt has {given} tokens" in refusal.cause


def test_an_embedding_input_over_the_batch_is_the_clients_fault() -> None:
    text = "input (600 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
    refusal = read(500, {"error": {"code": 500, "message": text, "type": "server_error"}}, prompt_field="input")
    assert (refusal.status, refusal.code, refusal.param) == (400, "context_length_exceeded", "input")
    assert "512" in refusal.cause
    assert "600" in refusal.cause


def test_a_number_as_code_becomes_none_and_a_name_stays() -> None:
    assert read(400, {"error": {"message": "no", "code": 400}}).code == ""
    assert read(400, {"error": {"message": "no", "code": "bad_grammar", "param": "grammar"}}).code == "bad_grammar"
    assert json.loads(openai_error(400, "no", ""))["error"]["code"] is None


def test_our_own_key_refused_is_our_fault() -> None:
    assert read(401, {"error": {"message": "Invalid API Key", "code": 401}}).status == 502


def test_a_loading_engine_stays_503_with_retry_after() -> None:
    refusal = read(503, {"error": {"code": 503, "message": "Loading model"}}, retry_after=9)
    assert (refusal.status, refusal.code) == (503, "model_loading")
    assert refusal.headers == ((b"retry-after", b"9"),)


def test_other_forms_of_errors_give_their_text() -> None:
    assert read(400, {"detail": "no such template"}).cause == "no such template"
    assert "loc" in read(422, {"detail": [{"loc": ["body"]}]}).cause
    assert read(400, {"object": "error", "message": "flat"}).cause == "flat"
    assert read(400, {"error": "text"}).cause == "text"
    assert read(500, b"<html>broken").cause == "<html>broken"
    assert read(500, b"").cause == "The engine answered with status 500."
    assert read(500, b"[" * 60_000).status == 500


def test_the_types_follow_the_status() -> None:
    assert json.loads(openai_error(404, "x", "c"))["error"]["type"] == "invalid_request_error"
    assert json.loads(openai_error(502, "x", "c"))["error"]["type"] == "server_error"
    anthropic = {
        400: "invalid_request_error",
        404: "not_found_error",
        413: "request_too_large",
        502: "api_error",
        503: "overloaded_error",
    }
    for status, kind in anthropic.items():
        assert json.loads(anthropic_error(status, "x")) == {"type": "error", "error": {"type": kind, "message": "x"}}


def test_what_a_chat_template_refuses_is_a_400_in_the_templates_own_words() -> None:
    said = "Error: Jinja Exception: Conversation roles must alternate"
    body = json.dumps({"error": {"code": 500, "message": f"While executing CallExpression …\n{said}"}}).encode()
    refusal = normalise(500, body, prompt_field="messages")
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_messages", "messages")
    assert refusal.cause.endswith("refuses this: Conversation roles must alternate")


def test_a_token_id_that_the_vocabulary_has_not_is_the_clients_mistake() -> None:
    said = "vector::_M_range_check: __n (which is 18446744073709551615) >= this->size() (which is 49152)"
    refusal = read(500, {"error": {"code": 500, "message": said, "type": "server_error"}}, prompt_field="tokens")
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_token", "tokens")
    assert "49152 tokens" in refusal.cause
