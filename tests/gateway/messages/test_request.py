"""Requests of Anthropic's API as chats, and as texts to count."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.harness import route
from xinference.errors import Problem
from xinference.gateway.messages.translation import translate
from xinference.gateway.routes import DATA_PATHS, substitute
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "weather", "description": "Its weather", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}
FUNCTION = {"type": "function", "function": {"name": "weather", "description": "Its weather", "parameters": SCHEMA}}
USE = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}
CALL = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
CHATTY = route(paths=frozenset({"/v1/chat/completions", "/tokenize"}), engine="Transformers")


def translated(path: str = "/v1/messages", **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    if path == "/v1/messages":
        body = {"max_tokens": 9} | body
    raw = json.dumps(body).encode()
    to = substitute(CHATTY, path)
    assert to is not None
    _, document, _ = translate(to, check(DATA_PATHS[path].decoder, raw), raw)
    chat: dict[str, Any] = json.loads(document.encoded())
    return chat


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def result(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t1", "content": content, **more}


def tool(content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "t1", "content": content}


CONVERSATIONS: dict[str, tuple[list[Any], list[Any]]] = {
    "a text": ([{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}]),
    "texts": ([user(text("a"), text("b"))], [{"role": "user", "content": "a\nb"}]),
    "an image": ([user(text("a"), PIXEL)], [user(text("a"), PICTURE)]),
    "a turn of two messages": ([user(text("a")), user(text("b"))], [{"role": "user", "content": "a\nb"}]),
    "a call and its result": (
        [assistant(text("I look."), USE), user(result("sun"), text("and?"))],
        [
            {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
            tool("sun"),
            {"role": "user", "content": "and?"},
        ],
    ),
    "a call alone": (
        [assistant(USE), user(result([text("a"), text("b")]))],
        [{"role": "assistant", "content": None, "tool_calls": [CALL]}, tool("a\nb")],
    ),
    "a result after a text": ([user(text("x"), result("a"))], [tool("a"), {"role": "user", "content": "x"}]),
    "an error": ([user(result("no", is_error=True))], [tool("Error: no")]),
    "no result": ([user({"type": "tool_result", "tool_use_id": "t1"})], [tool("")]),
    "an image as a result": ([user(result([text("a"), PIXEL]))], [tool("a"), user(PICTURE)]),
    "thoughts": (
        [
            assistant(
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                text("a"),
            ),
            user(text("b")),
        ],
        [{"role": "assistant", "content": "a", "reasoning_content": "hm"}, {"role": "user", "content": "b"}],
    ),
    "a beginning of the answer": (
        [user(text("a")), {"role": "assistant", "content": "The"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "The"}],
    ),
    "answers in a row": (
        [assistant(text("a"), text("b")), assistant(text("c")), user(text("d"))],
        [{"role": "assistant", "content": "ab\n\nc"}, {"role": "user", "content": "d"}],
    ),
    "a system message on the way": (
        [user(text("a")), {"role": "system", "content": "b"}],
        [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}],
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_messages_are_those_of_a_chat(name: str) -> None:
    given, expected = CONVERSATIONS[name]
    assert translated(messages=given)["messages"] == expected


@pytest.mark.parametrize("system", ["a\nb", [text("a"), {**text("b"), "cache_control": {"type": "ephemeral"}}]])
def test_the_system_prompt_is_the_first_message(system: Any) -> None:
    assert translated(system=system)["messages"][0] == {"role": "system", "content": "a\nb"}


FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"temperature": 0.5, "top_p": 0.5, "top_k": 3}, {"temperature": 0.5, "top_p": 0.5, "top_k": 3}),
    ({"stop_sequences": ["a", ""]}, {"stop": ["a"]}),
    ({"stop_sequences": [""]}, {}),
    ({"tools": [TOOL]}, {"tools": [FUNCTION]}),
    ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, {"tools": [FUNCTION], "tool_choice": "auto"}),
    ({"tools": [TOOL], "tool_choice": {"type": "any"}}, {"tools": [FUNCTION], "tool_choice": "required"}),
    ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {"tools": [FUNCTION], "tool_choice": "none"}),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
        {
            "tools": [FUNCTION],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": False,
        },
    ),
    ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"enable_thinking": True}),
    ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
    ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "high"}),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    ({"metadata": {"user_id": "x"}, "system": None, "tools": None, "top_k": None, "thinking": None}, {}),
    ({"n": 1, "stop": [], "stream_options": {}}, {}),
    ({"seed": 3, "request_id": "r"}, {"seed": 3, "request_id": "r"}),
]


@pytest.mark.parametrize(("given", "expected"), FIELDS)
def test_fields_are_those_of_a_chat(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert translated(**given) == translated() | expected


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"n": 2}, "n"),
    ({"stop": "x"}, "stop"),
    ({"thinking": {"type": "much"}}, "thinking.type"),
    ({"thinking": {}}, "thinking.type"),
    ({"thinking": {"type": ["enabled"]}}, "thinking.type"),
    ({"output_config": {"effort": {}}}, "output_config.effort"),
    ({"messages": [assistant({"type": "thinking", "thinking": 7})]}, "messages[0].content[0].thinking"),
    ({"output_config": {"effort": "least"}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
    ({"messages": [user(USE)]}, "messages[0].content[0].type"),
    ({"messages": [user({"type": "tool_result", "content": "a"})]}, "messages[0].content[0].tool_use_id"),
    ({"messages": [user({"type": "image"})]}, "messages[0].content[0].source.data"),
    ({"messages": [assistant(PIXEL)]}, "messages[0].content[0].type"),
    ({"system": [PIXEL]}, "system[0].type"),
]


@pytest.mark.parametrize(("given", "param"), REFUSED)
def test_what_a_chat_cannot_do_is_refused_by_name(given: dict[str, Any], param: str) -> None:
    with pytest.raises(Problem) as caught:
        translated(**given)
    assert isinstance(caught.value, Refusal)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert param in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"system": "a"}, {"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "hi"}]}),
        ({"tools": [TOOL]}, {"tools": [FUNCTION]}),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {}),
        (
            {"thinking": {"type": "disabled"}},
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        ),
    ],
)
def test_the_counted_text_is_that_of_the_chat(given: dict[str, Any], expected: dict[str, Any]) -> None:
    plain = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert translated("/v1/messages/count_tokens", **given) == plain | expected


@pytest.mark.parametrize(
    ("paths", "to"),
    [
        ({"/v1/chat/completions", "/tokenize"}, ("/v1/chat/completions", "/tokenize")),
        ({"/v1/chat/completions"}, ("/v1/chat/completions", None)),
        ({"/v1/embeddings", "/tokenize"}, (None, None)),
        ({"/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/tokenize"}, (None, None)),
    ],
)
def test_only_an_engine_with_chats_and_without_messages_needs_a_translation(paths: set[str], to: Any) -> None:
    found = [substitute(route(paths=frozenset(paths)), path) for path in ("/v1/messages", "/v1/messages/count_tokens")]
    assert tuple(path and path.upstream for path in found) == to
