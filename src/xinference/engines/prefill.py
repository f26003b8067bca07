"""Chats whose last message is the assistant's: the engine continues this message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xinference.engines.dialect import UNCHANGED, Body, Exchange
from xinference.protocol.requests import Chat, Request

CONTINUE, NEW_ANSWER = "continue_final_message", "add_generation_prompt"


def has_prefill(request: Request) -> bool:
    """Whether the last message of a chat is the assistant's."""
    return isinstance(request, Chat) and request.messages[-1].role == "assistant"


def given_beginning(body: Body) -> str:
    """The beginning of the answer that the last message of a request gives; empty: none."""
    last = body["messages"][-1]
    content = last.get("content")
    if last["role"] != "assistant" or last.get("tool_calls") or not content:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content) if all(map(_is_text, content)) else ""


def with_one_text(body: Body) -> Body:
    """The request with a given beginning as one text: engines put different separators between its parts."""
    begun = given_beginning(body)
    if not begun or isinstance(body["messages"][-1]["content"], str):
        return body
    return body | {"messages": [*body["messages"][:-1], {**body["messages"][-1], "content": begun}]}


def continuing(*switches: str) -> Callable[[Request, str], Exchange]:
    """The exchanges of an engine that continues a last message only if the request says so.

    Args:
        switches: names of the fields that say so. A request that has one of them stays as it is.
    """
    values = {name: name == CONTINUE for name in switches}

    def rewrite(body: Body) -> Body:
        if not given_beginning(body) or not values.keys().isdisjoint(body):
            return body
        return with_one_text(body) | values

    exchange = Exchange(body=rewrite)

    def choose(request: Request, uid: str) -> Exchange:
        return exchange if has_prefill(request) else UNCHANGED

    return choose


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
