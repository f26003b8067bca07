"""Whether an answer continues the last message of a chat is the same on every engine, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.test_native_fields import LLAMA_CPP, SGLANG, TRANSFORMERS, VLLM, refused, to_engine
from tests.support.cases import in_one_test
from xinference.engines.dialects import DIALECTS

USER, BEGUN = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "The"}
CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
ENGINES = in_one_test("engine", sorted(DIALECTS))


@ENGINES
@in_one_test("further", [{}, {"add_generation_prompt": False}, {"user": None}, {"min_p": 0.1}])
@in_one_test(
    ("last", "said"),
    [
        (USER, "continue_final_message: true: the last message is not one of the assistant."),
        ({"role": "tool", "content": "r", "tool_call_id": "c"}, "is not one of the assistant"),
        (BEGUN | {"content": ""}, "has no text that an answer can continue"),
        (BEGUN | {"tool_calls": CALLS}, "has no text that an answer can continue"),
    ],
)
def test_a_chat_without_a_message_to_continue_is_refused(
    engine: str, further: dict[str, Any], last: dict[str, Any], said: str
) -> None:
    refusal = refused(engine, messages=[USER, last], continue_final_message=True, **further)
    assert refusal.param == "continue_final_message" and said in refusal.cause
    assert refusal.hint is not None and "role assistant" in refusal.hint


@ENGINES
def test_a_chat_that_is_to_continue_and_to_begin_is_refused(engine: str) -> None:
    fields: dict[str, Any] = {"continue_final_message": True, "add_generation_prompt": True}
    assert "contradicts add_generation_prompt" in refused(engine, messages=[USER, BEGUN], **fields).cause


@in_one_test(
    ("engine", "sent"),
    [
        (LLAMA_CPP, {"continue_final_message": True, "add_generation_prompt": False}),
        (VLLM, {"continue_final_message": True, "add_generation_prompt": False}),
        (SGLANG, {"continue_final_message": True}),
        (TRANSFORMERS, {"continue_final_message": True}),
    ],
)
@in_one_test("further", [{}, {"add_generation_prompt": False}])
def test_a_chat_with_a_beginning_may_say_that_it_is_continued(
    engine: str, sent: dict[str, Any], further: dict[str, Any]
) -> None:
    body = to_engine(engine, messages=[USER, BEGUN], continue_final_message=True, **further)
    names = ("continue_final_message", "add_generation_prompt")
    assert {name: body[name] for name in names if name in body} == sent


@in_one_test(
    ("engine", "sent"),
    [
        (VLLM, {"continue_final_message": False}),
        (SGLANG, {"continue_final_message": False}),
        (TRANSFORMERS, {"continue_final_message": False}),
    ],
)
@in_one_test("fields", [{"continue_final_message": False}, {"add_generation_prompt": True}])
def test_a_chat_with_a_beginning_may_ask_for_a_new_message(
    engine: str, sent: dict[str, Any], fields: dict[str, Any]
) -> None:
    body = to_engine(engine, messages=[USER, BEGUN], **fields)
    assert {name: body[name] for name in sent} == sent


@in_one_test("fields", [{"continue_final_message": False}, {"add_generation_prompt": True}])
def test_llama_cpp_always_continues(fields: dict[str, Any]) -> None:
    (name,) = fields
    refusal = refused(LLAMA_CPP, messages=[USER, BEGUN], **fields)
    assert refusal.param == name and "llama.cpp continues a last message" in refusal.cause


@in_one_test("engine", [SGLANG, TRANSFORMERS])
def test_a_prompt_without_the_beginning_of_an_answer_is_refused_where_none_can_be_made(engine: str) -> None:
    assert refused(engine, messages=[USER], add_generation_prompt=False).param == "add_generation_prompt"


@ENGINES
@in_one_test("fields", [{"continue_final_message": False}, {"add_generation_prompt": True}])
def test_a_value_that_is_the_default_is_accepted(engine: str, fields: dict[str, Any]) -> None:
    assert to_engine(engine, messages=[USER], **fields)["messages"] == [USER]


@pytest.mark.parametrize("value", ["content", "reasoning_content"])
def test_llama_cpp_continues_the_named_part_of_a_message(value: str) -> None:
    last = BEGUN | {"reasoning_content": "r"}
    body = to_engine(LLAMA_CPP, messages=[USER, last], continue_final_message=value)
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (value, False)


def test_a_prompt_of_a_conversation_is_continued_as_its_chat_is() -> None:
    body = to_engine(LLAMA_CPP, "/apply-template", messages=[USER, BEGUN], continue_final_message=True)
    assert body["add_generation_prompt"] is False
    refusal = refused(LLAMA_CPP, "/apply-template", messages=[USER], continue_final_message=True)
    assert "is not one of the assistant" in refusal.cause
