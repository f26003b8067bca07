"""Brings the messages, calls and tools of a chat into the form that every engine reads."""

from __future__ import annotations

from typing import Any

from xinference.engines.dialect import Body
from xinference.error_codes import Code
from xinference.gateway.canonical_fields import (
    check_text,
    invalid,
    named_tool,
    not_one_of,
    readable_arguments,
    required,
    unsupported,
)
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.text_files import FILES, as_text
from xinference.protocol.errors import Refusal

TOOL_CHOICES = ("none", "auto", "required")
#: How a chat may call the tools that it allows.
MODES = ("auto", "required")
IMAGE_PARTS = frozenset({"image_url", "image", "input_image"})
AUDIO_PARTS = frozenset({"input_audio", "audio_url"})
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


def canonical_chat(document: RequestDocument) -> None:
    """Change a chat in place.

    Raises:
        Refusal: 400, naming the field.
    """
    body = document.fields
    messages = body["messages"]
    for n, message in enumerate(messages):
        _message(document, message, f"messages[{n}]")
    join_last(document, messages)
    tools = _tools(document)
    choice = body.get("tool_choice")
    if choice is not None:
        _tool_choice(document, choice, tools)


def _message(document: RequestDocument, message: Body, at: str) -> None:
    document.drop_nulls(message, "content")
    content, role = message.get("content"), message["role"]
    if isinstance(content, list):
        content = _parts(document, message, content, f"{at}.content")
        document.put(message, "content", content)
    if not message.get("tool_calls"):
        document.remove(message, "tool_calls")
    if not content and isinstance(message.get("refusal"), str):
        content = document.remove(message, "refusal")
        document.put(message, "content", content)
    if content is None and message.get("audio") is not None:
        raise unsupported(f"{at}.audio", "models here have no earlier answers as audio.", "Send its transcript.")
    if content is None and "tool_calls" not in message:
        if role not in ("assistant", "tool", "function"):
            raise required(f"{at}.content")
        document.put(message, "content", "")
    for n, call in enumerate(message.get("tool_calls", ())):
        _call(document, call, f"{at}.tool_calls[{n}]")


def _parts(document: RequestDocument, message: Body, parts: list[Any], at: str) -> Any:
    """The parts of a message's content as engines read them; a text if nothing is left of them."""
    taken: list[Body] = []
    for n, part in enumerate(parts):
        document.drop_nulls(part)
        kind = part["type"]
        if kind in TEXT_PARTS:
            check_text(part, f"{at}[{n}]")
            document.put(part, "type", "text")
            document.remove(part, "annotations")
        elif kind == "refusal":
            part = {"type": "text", "text": part.get("refusal", part.get("text", ""))}
        elif kind in ("thinking", "reasoning", "reasoning_text", "summary_text", "redacted_thinking"):
            thought = part.get("thinking") or part.get("text")
            if isinstance(thought, str):
                document.put(message, "reasoning_content", message.get("reasoning_content", "") + thought)
            continue
        elif kind in FILES:
            part = {"type": "text", "text": as_text(part, f"{at}[{n}]")}
        elif kind in IMAGE_PARTS:
            part = {"type": "image_url", "image_url": _image(document, part, f"{at}[{n}]")}
        elif kind in AUDIO_PARTS:
            if part.get(kind) is None:
                raise required(f"{at}[{n}].{kind}")
            document.drop_nulls(part[kind])
        else:
            raise _foreign_part(kind, f"{at}[{n}].type")
        taken.append(part)
    return taken or ""


def _image(document: RequestDocument, part: Body, at: str) -> Body:
    """The image of a part, in the form of `image_url`; other APIs have an address in place of the object."""
    image = part.get("image_url", part.get("image"))
    if image is None:
        raise required(f"{at}.{'image' if part['type'] == 'image' else 'image_url'}")
    if not isinstance(image, dict):
        image = {"url": image}
        if part.get("detail") is not None:
            image["detail"] = part["detail"]
    document.drop_nulls(image)
    return image


def _foreign_part(kind: str, at: str) -> Refusal:
    return Refusal(
        Code.UNSUPPORTED_CONTENT,
        f"{at}: a chat has no content of the type {kind}.",
        hint="Calls belong into tool_calls, results into messages of the role tool, as text.",
        param=at,
    )


def _call(document: RequestDocument, call: Body, at: str) -> None:
    """Check an earlier call, and make its arguments an object's JSON: a model may have written anything."""
    document.drop_nulls(call)
    kind = call.get("type")
    if kind is None:
        raise required(f"{at}.type")
    if kind != "function":
        raise unsupported(f"{at}.type", f"calls of the type {str(kind)[:100]} are not taken here.", "Use function.")
    function = _named_function(document, call, at)
    document.put(function, "arguments", readable_arguments(function.get("arguments")))


def _named_function(document: RequestDocument, holder: Body, at: str) -> Body:
    """The function of a tool or of a call, which must have a name."""
    function = holder.get("function")
    if not isinstance(function, dict):
        raise required(f"{at}.function")
    document.drop_nulls(function)
    if not function.get("name"):
        raise required(f"{at}.function.name")
    return function


def join_last(document: RequestDocument, messages: list[Body]) -> None:
    """Join assistant messages at the end: they begin one answer, and engines take one message for that."""
    while len(messages) > 1 and messages[-1]["role"] == "assistant" == messages[-2]["role"]:
        last, first = messages[-1], messages[-2]
        if last.get("tool_calls") or first.get("tool_calls"):
            return
        messages.pop()
        document.is_changed = True
        for name in ("content", "reasoning_content"):
            if first.get(name) and last.get(name):
                first[name] = _joined(first[name], last[name])
            elif last.get(name):
                first[name] = last[name]


def _joined(first: Any, last: Any) -> Any:
    if isinstance(first, str) and isinstance(last, str):
        return f"{first}\n\n{last}"
    return [part for content in (first, last) for part in _as_parts(content)]


def _as_parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


# -- tools of chats ---------------------------------------------------------------------------------------------


def _tools(document: RequestDocument) -> dict[str, Body]:
    """The checked tools by name."""
    tools = document.fields.get("tools")
    if not tools:
        document.remove(document.fields, "tools")
        return {}
    named: dict[str, Body] = {}
    for n, tool in enumerate(tools):
        at = f"tools[{n}]"
        document.drop_nulls(tool)
        kind = tool.get("type")
        if kind is None:
            raise required(f"{at}.type")
        if kind != "function":
            cause = f"tools of the type {str(kind)[:100]} are not taken here."
            raise unsupported(f"{at}.type", cause, "Describe it as a function.")
        named[_named_function(document, tool, at)["name"]] = tool
    return named


def _tool_choice(document: RequestDocument, choice: Any, tools: dict[str, Body]) -> None:
    if isinstance(choice, str):
        if choice not in TOOL_CHOICES:
            raise not_one_of("tool_choice", choice, TOOL_CHOICES, ", or an object that names a tool")
        if not tools:
            if choice == "required":
                raise invalid("tool_choice", "it is 'required', but there are no tools.")
            document.remove(document.fields, "tool_choice")
        return
    if not isinstance(choice, dict):  # paths without this field in their form take it as it is
        raise not_one_of("tool_choice", choice, TOOL_CHOICES, ", or an object that names a tool")
    kind = choice.get("type")
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools")
        if not isinstance(allowed, dict):
            raise required("tool_choice.allowed_tools")
        _allow(document, allowed, tools)
    elif kind in ("function", None):
        named_tool(choice.get("function"), tools, "tool_choice.function.name")
    else:
        cause = f"the type {str(kind)[:100]} is not taken here."
        raise unsupported("tool_choice.type", cause, f"Use {', '.join(TOOL_CHOICES)}, or the type function.")


def _allow(document: RequestDocument, allowed: Body, tools: dict[str, Body]) -> None:
    """Pass only the tools that the request allows."""
    at = "tool_choice.allowed_tools"
    mode, named = allowed.get("mode") or "auto", allowed.get("tools")
    if mode not in MODES:
        raise not_one_of(f"{at}.mode", mode, MODES)
    if not isinstance(named, list) or not named:
        raise required(f"{at}.tools")
    left = [
        named_tool(one.get("function", one) if isinstance(one, dict) else None, tools, f"{at}.tools[{n}].function.name")
        for n, one in enumerate(named)
    ]
    document.put(document.fields, "tools", left)
    document.put(document.fields, "tool_choice", mode)
