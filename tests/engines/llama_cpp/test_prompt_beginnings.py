"""The beginnings that two requests have in common, by their bodies alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from xinference.engines.llama_cpp.prompt_beginnings import Prompt, prefill_body, read_prompt, with_slot

CHAT = "/v1/chat/completions"
SYSTEM = {"role": "system", "content": "You are a lamp. " * 200}
TOOLS = [{"type": "function", "function": {"name": "find", "description": "Finds things. " * 100}}]


def prompt(*messages: dict[str, str], path: str = CHAT, seed: bytes = b"", **fields: Any) -> Prompt:
    found = read_prompt(path, json.dumps({"model": "m", "messages": messages, **fields}).encode(), seed)
    assert found is not None
    return found


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_two_questions_after_one_system_prompt_have_it_in_common() -> None:
    first, second = prompt(SYSTEM, user("What?")), prompt(SYSTEM, user("Who?"))
    assert first.common(second) == second.common(first) == len(json.dumps(SYSTEM))
    assert first.common(first) == first.size


def test_the_next_turn_of_a_conversation_begins_with_the_whole_prompt_before() -> None:
    first = prompt(SYSTEM, user("What?"))
    second = prompt(SYSTEM, user("What?"), {"role": "assistant", "content": "A lamp."}, user("Why?"))
    assert second.common(first) == first.size < second.size


def test_documents_before_the_question_in_one_message_are_in_common() -> None:
    documents = "A river is long. " * 400
    first, second = prompt(user(documents + "How long?")), prompt(user(documents + "Which one?"))
    assert first.common(second) > 0.8 * len(documents)


@pytest.mark.parametrize(
    "change",
    [
        {"tools": [*TOOLS, {"type": "function", "function": {"name": "other"}}]},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"seed": b"another key"},
        {"path": "/v1/messages"},
    ],
    ids=str,
)
def test_a_field_that_changes_the_text_of_the_prompt_leaves_no_system_prompt_in_common(change: dict[str, Any]) -> None:
    common = prompt(SYSTEM, tools=TOOLS).common(prompt(SYSTEM, **{"tools": TOOLS, **change}))
    assert common <= len(json.dumps(TOOLS)) + len(b"tools=")


def test_fields_that_only_choose_tokens_change_nothing() -> None:
    assert prompt(SYSTEM, temperature=0).common(prompt(SYSTEM, temperature=1, stream=True, max_tokens=3)) > 3000


def test_a_longer_text_begins_with_the_shorter_one() -> None:
    short, long = (
        read_prompt("/v1/completions", json.dumps({"prompt": "Once upon a time " * n}).encode()) for n in (200, 400)
    )
    assert short is not None
    assert long is not None
    assert 0.7 * short.size < long.common(short) <= short.size


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [user("hi")], "n": 3},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        {"messages": [user("hi")], "cache_prompt": False},
        {"prompt": [1, 2, 3]},
        {"prompt": ["a", "b"]},
    ],
    ids=str,
)
def test_these_requests_share_nothing(fields: dict[str, Any]) -> None:
    path = CHAT if "messages" in fields else "/v1/completions"
    found = read_prompt(path, json.dumps(fields).encode())
    assert found is not None
    assert not found.ends
    assert found.slots == fields.get("n", 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/embeddings", b'{"input": "a"}'), (CHAT, b'{"messages": 3}'), (CHAT, b"\xff"), ("/tokenize", b"{}")],
)
def test_other_requests_have_no_place(path: str, body: bytes) -> None:
    assert read_prompt(path, body) is None


def test_a_body_gets_its_slot_and_stays_the_same_otherwise() -> None:
    assert json.loads(with_slot(b' {"model": "m", "stream": true}', 3)) == {"id_slot": 3, "model": "m", "stream": True}
    assert json.loads(with_slot(b"{ }", 0)) == {"id_slot": 0}


def test_the_request_that_computes_a_prompt_has_the_same_prompt_and_one_token() -> None:
    body = {"model": "m", "messages": [SYSTEM], "tools": TOOLS, "stream": True, "max_completion_tokens": 90, "n": 1}
    computed = json.loads(prefill_body(json.dumps(body).encode(), 5))
    assert computed == {
        "model": "m",
        "messages": [SYSTEM],
        "tools": TOOLS,
        "n": 1,
        "max_tokens": 1,
        "id_slot": 5,
    }
