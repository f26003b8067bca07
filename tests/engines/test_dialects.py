from __future__ import annotations

import pytest

from tests.engines.dialects import explained
from tests.support.cases import in_one_test
from xinference.engines.dialect import UNCHANGED, Dialect, EngineError
from xinference.engines.dialects import DIALECTS, dialect_of
from xinference.engines.registry import all_engines
from xinference.protocol.message_forms import ChatMessage
from xinference.protocol.requests import Chat


def test_each_engine_has_a_dialect_under_its_display_name() -> None:
    assert DIALECTS.keys() == all_engines().keys()
    assert all(name == dialect.engine for name, dialect in DIALECTS.items())


def test_an_engine_without_a_dialect_gets_requests_and_gives_answers_as_they_are() -> None:
    plain = dialect_of("")
    assert plain == Dialect("")
    assert plain.exchange(Chat(model="m", messages=[ChatMessage(role="user")], n=2), "m") is UNCHANGED
    assert plain.explain(EngineError({}, "maximum context length is 5", "messages", None)) is None


def test_vllms_too_long_prompt_keeps_its_words_and_gets_the_code() -> None:
    text = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."
    refusal = explained("vLLM", {"message": text, "type": "BadRequestError", "param": None, "code": 400})
    assert (refusal.status, refusal.code, refusal.cause) == (400, "context_length_exceeded", text)


def test_sglangs_too_long_prompt_keeps_its_words_where_the_promised_length_is_not_known() -> None:
    text = "The input (4100 tokens) is longer than the model's context length (4096 tokens)."
    refusal = explained("SGLang", {"message": text, "code": 400})
    assert (refusal.status, refusal.code, refusal.cause) == (400, "context_length_exceeded", text)


VLLM_SAYS = (
    "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4100 input tokens, "
    "which exceeds this limit even without any output tokens."
)


@pytest.mark.parametrize(
    ("engine", "text", "given"),
    [
        ("vLLM", VLLM_SAYS, "at least 4100"),
        ("vLLM", "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", "4096"),
        ("SGLang", "The input (4100 tokens) is longer than the model's context length (4096 tokens).", "4100"),
    ],
)
def test_what_vllm_and_sglang_say_of_a_long_prompt_names_the_promised_length(
    engine: str, text: str, given: str
) -> None:
    refusal = explained(engine, {"message": text, "code": 400}, context_length=4095)
    assert (refusal.code, refusal.param) == ("context_length_exceeded", "messages")
    assert refusal.cause.startswith("This model's maximum context length is 4095 tokens")
    assert f"the prompt has {given} tokens" in refusal.cause


def test_our_transformers_servers_errors_are_read_as_llama_cpps_are() -> None:
    error = {"message": "too long", "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8}
    assert "context length is 8 tokens, but the prompt has 9" in explained("Transformers", error).cause
    refusal = explained("Transformers", {"message": "Jinja Exception: Roles must alternate"})
    assert (refusal.code, refusal.param) == ("invalid_messages", "messages")


@pytest.mark.parametrize("code", ["template_limit", "constraint_too_complex"])
def test_work_that_our_transformers_server_ended_is_the_requests_fault(code: str) -> None:
    refusal = explained("Transformers", {"message": "It takes more than 5 seconds.", "code": code, "param": "messages"})
    assert (refusal.status, refusal.code, refusal.param) == (400, code, "messages")


REPORT = """The schema is not valid: at 2(8): failed to compile JSON schema: {}
   1 | start: " "? value
   2 | value: %json {{"type": "string"}}
              ^"""


@in_one_test(
    ("fault", "said"),
    [
        ('Unimplemented keys: ["if", "then"]', "Transformers cannot apply if, then."),
        ("Invalid type: foo", "the schema is not valid: Invalid type: foo."),
        ("Pointer '/$defs/X' does not exist", "the schema is not valid: Pointer '/$defs/X' does not exist."),
        (
            "regex parse error:\n    [\n    ^\nerror: unclosed character class",
            "the schema is not valid: a pattern: unclosed character class.",
        ),
    ],
)
def test_a_schema_that_transformers_cannot_apply_is_refused_without_the_compilers_report(fault: str, said: str) -> None:
    refusal = explained("Transformers", {"message": REPORT.format(fault), "param": "response_format"})
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_constraint", "response_format")
    assert refusal.cause == f"response_format: {said}"


def test_the_schema_of_a_tool_is_named_as_one() -> None:
    report = REPORT.format("Invalid type: foo").replace("value", "arguments_0")
    assert explained("Transformers", {"message": report, "param": "response_format"}).param == "tools"
