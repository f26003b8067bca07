"""Requests with tools for a model whose calls its engine can't read are a 400 before the engine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.support.cases import in_one_test
from xinference.gateway.engine_requests import prepare
from xinference.gateway.request_document import RequestDocument
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import AnthropicMessages, Chat
from xinference.routing.table import Route, RoutingTable

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "f"}}
MESSAGES = [{"role": "user", "content": "a"}]


def route(engine: str = "vLLM", refused: str | None = "It calls none.") -> Route:
    return Route(
        "some", engine=engine, model_type="LLM", model_name="some", context_length=9, created=0,
        tools_refused=refused,
    )  # fmt: skip


def send(to: Route, **fields: Any) -> None:
    body = msgspec.json.encode({"model": "some", "messages": MESSAGES, **fields})
    prepare(RoutingTable(), to, msgspec.json.decode(body, type=Chat), RequestDocument(body))


@in_one_test("engine", ["vLLM", "SGLang", "Transformers", "llama.cpp"])
@in_one_test(
    "fields",
    [
        {},
        {"tool_choice": "auto"},
        {"stream": True},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}},
    ],
)
def test_a_choice_of_the_model_is_refused(engine: str, fields: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        send(route(engine), tools=[TOOL], **fields)
    assert (caught.value.code, caught.value.status, caught.value.param) == ("tools_unsupported", 400, "tools")
    assert "It calls none." in caught.value.cause


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_forced_call_is_served_where_a_schema_forces_it(choice: Any) -> None:
    send(route(), tools=[TOOL], tool_choice=choice)


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_forced_call_is_refused_where_nothing_forces_it(choice: Any) -> None:
    with pytest.raises(Refusal, match="It calls none"):
        send(route("llama.cpp"), tools=[TOOL], tool_choice=choice)


def test_requests_without_tools_and_with_a_choice_of_none_are_served() -> None:
    send(route())
    send(route(), tools=[])
    send(route(), tools=[TOOL], tool_choice="none")
    send(route(refused=None), tools=[TOOL])


def test_older_functions_are_tools() -> None:
    with pytest.raises(Refusal, match="It calls none"):
        send(route(), functions=[TOOL["function"]])


def test_anthropics_messages_are_checked_too() -> None:
    tool = {"name": "f", "input_schema": {"type": "object"}}

    def ask(choice: dict[str, Any] | None) -> None:
        fields = {"tool_choice": choice} if choice else {}
        body = msgspec.json.encode({"model": "some", "max_tokens": 4, "messages": MESSAGES, "tools": [tool], **fields})
        prepare(RoutingTable(), route(), msgspec.json.decode(body, type=AnthropicMessages), RequestDocument(body))

    for refused in (None, {"type": "auto"}):
        with pytest.raises(Refusal, match="It calls none"):
            ask(refused)
    ask({"type": "any"})
    ask({"type": "tool", "name": "f"})
