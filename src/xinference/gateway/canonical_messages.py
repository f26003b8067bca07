"""Brings the messages and tools of Anthropic's API into the form that every engine reads."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.gateway.canonical_chats import join_last
from xinference.gateway.canonical_fields import (
    check_schema,
    check_text,
    invalid,
    named_tool,
    not_one_of,
    readable_arguments,
    required,
    unsupported,
)
from xinference.gateway.request_document import RequestDocument

TOOL_CHOICES = ("auto", "any", "tool", "none")


def canonical_messages(document: RequestDocument) -> None:
    """Change a request of Anthropic's API in place.

    Raises:
        Refusal: 400, naming the field.
    """
    body = document.fields
    for n, message in enumerate(body["messages"]):
        document.drop_nulls(message)
        if message.get("content") is None:
            raise required(f"messages[{n}].content")
        _anthropic_parts(document, message["content"], f"messages[{n}].content")
    join_last(document, body["messages"])
    _anthropic_parts(document, body.get("system"), "system")
    names = _anthropic_tools(document)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        document.drop_nulls(choice)
        if choice.get("type") == "tool":
            named_tool(choice, {name: {} for name in names}, "tool_choice.name")
        elif choice.get("type") == "any" and not names:
            raise invalid("tool_choice", "it is 'any', but there are no tools.")
        elif choice.get("type") not in TOOL_CHOICES:
            raise not_one_of("tool_choice.type", choice.get("type"), TOOL_CHOICES)
    output = body.get("output_config")
    for name, form in (
        ("output_format", body.get("output_format")),
        ("output_config.format", output.get("format") if isinstance(output, dict) else None),
    ):
        if isinstance(form, dict) and form.get("type") == "json_schema":
            check_schema(form.get("schema"), f"{name}.schema")


def _anthropic_parts(document: RequestDocument, parts: Any, at: str) -> None:
    if not isinstance(parts, list):
        return
    for n, part in enumerate(parts):
        document.drop_nulls(part, "input")
        if part["type"] == "text":
            check_text(part, f"{at}[{n}]")
        elif part["type"] == "tool_use":
            if not isinstance(part.get("name"), str):
                raise required(f"{at}[{n}].name")
            if not isinstance(part.get("input"), dict):
                document.put(part, "input", msgspec.json.decode(readable_arguments(part.get("input")).encode()))
        elif part["type"] == "tool_result":
            _anthropic_parts(document, part.get("content"), f"{at}[{n}].content")


def _anthropic_tools(document: RequestDocument) -> list[str]:
    names: list[str] = []
    for n, tool in enumerate(document.fields.get("tools") or ()):
        document.drop_nulls(tool)
        kind = tool.get("type", "custom")
        if kind != "custom":
            cause = f"tools of the type {str(kind)[:100]} are not taken here."
            raise unsupported(f"tools[{n}].type", cause, "Describe it by name and input_schema.")
        for name in ("name", "input_schema"):
            if not tool.get(name) and tool.get(name) != {}:
                raise required(f"tools[{n}].{name}")
        names.append(tool["name"])
    return names
