"""An assistant message at the end begins the answer: llama.cpp continues it, and only its whole answers repeat it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.test_canonical_requests import USER, prepared
from xinference.gateway.engine_requests import EngineCall

CHATS, MESSAGES = "/v1/chat/completions", "/v1/messages"
BEGUN = {"role": "assistant", "content": "Hello"}
PARTS = {"role": "assistant", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}


def call(path: str, *last: dict[str, Any], **fields: Any) -> EngineCall:
    return prepared("llama.cpp", path, messages=[USER, *last], **fields)


def whole(path: str, text: str) -> dict[str, Any]:
    """An answer of llama.cpp with this text."""
    if path == MESSAGES:
        return {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


def answered(called: EngineCall, answer: dict[str, Any]) -> Any:
    body = json.dumps(answer).encode()
    return json.loads(body if called.answer is None else called.answer(body))


@pytest.mark.parametrize("path", [CHATS, MESSAGES])
@pytest.mark.parametrize("last", [BEGUN, PARTS])
def test_an_answer_does_not_repeat_its_given_beginning(path: str, last: dict[str, Any]) -> None:
    called = call(path, last)
    assert json.loads(called.body)["messages"][-1] == BEGUN
    assert answered(called, whole(path, "Hello my name")) == whole(path, " my name")
    assert answered(called, whole(path, "HelloHello")) == whole(path, "Hello")
    assert answered(called, whole(path, "Good day")) == whole(path, "Good day")


@pytest.mark.parametrize("path", [CHATS, MESSAGES])
def test_several_messages_at_the_end_are_one_beginning(path: str) -> None:
    called = call(path, BEGUN, {"role": "assistant", "content": "my name"})
    assert json.loads(called.body)["messages"] == [USER, {"role": "assistant", "content": "Hello\n\nmy name"}]
    assert answered(called, whole(path, "Hello\n\nmy name is")) == whole(path, " is")


def test_a_stream_is_not_cut_because_it_repeats_nothing() -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
    called = call(CHATS, PARTS, stream=True)
    assert json.loads(called.body)["messages"][-1] == BEGUN
    assert called.events is not None and b"Hello" in called.events(event)
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
    event = b"event: content_block_delta\ndata: " + json.dumps(delta, separators=(",", ":")).encode() + b"\n\n"
    rewrite = call(MESSAGES, BEGUN, stream=True).events
    assert rewrite is not None and rewrite(event) == event


def test_an_answer_that_is_assembled_from_a_stream_is_not_cut() -> None:
    called = call(CHATS, BEGUN, logprobs=True)
    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hello"}}]}
    assert called.answer is not None
    document = json.loads(called.answer(b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"))
    assert document["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize(
    "last",
    [{"role": "assistant", "content": ""}, {"role": "assistant", "content": None}, {"role": "user", "content": "x"}],
)
def test_a_conversation_without_a_beginning_has_an_answer_as_it_is(last: dict[str, Any]) -> None:
    assert answered(call(CHATS, last), whole(CHATS, "Hello")) == whole(CHATS, "Hello")


@pytest.mark.parametrize(
    ("engine", "fields"),
    [
        ("vLLM", {"continue_final_message": True, "add_generation_prompt": False}),
        ("SGLang", {"continue_final_message": True}),
    ],
)
def test_an_engine_that_must_be_told_is_told_to_continue_it(engine: str, fields: dict[str, bool]) -> None:
    for last in (BEGUN, PARTS):
        body = json.loads(prepared(engine, messages=[USER, last]).body)
        assert body["messages"] == [USER, BEGUN]
        assert {name: body[name] for name in fields} == fields
    refusing = json.loads(prepared(engine, messages=[USER, BEGUN], continue_final_message=False).body)
    assert refusing["continue_final_message"] is False and "add_generation_prompt" not in refusing
    for messages in ([USER], [BEGUN, USER], [USER, BEGUN | {"content": ""}]):
        assert fields.keys().isdisjoint(json.loads(prepared(engine, messages=messages).body))
