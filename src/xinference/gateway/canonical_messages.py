"""Brings the messages and tools of Anthropic's API into the form that every engine reads."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from xinference.engines.dialect import Body
from xinference.error_codes import Code
from xinference.gateway.canonical_chats import join_last
from xinference.gateway.canonical_fields import (
    check_format_place,
    check_schema,
    invalid,
    named_tool,
    not_one_of,
    readable_arguments,
    required,
    unsupported,
)
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.text_documents import DOCUMENTS, as_parts
from xinference.protocol.errors import Refusal

TOOL_CHOICES = ("auto", "any", "tool", "none")
THINKING = ("enabled", "disabled", "adaptive")
EFFORTS = ("low", "medium", "high", "xhigh", "max")
#: Field that a message does not have and that would change its answer -> what to use instead.
_OTHERS = {
    "response_format": "Use output_config.format.",
    "stop": "Use stop_sequences.",
    "functions": "Use tools.",
    "container": "Leave it out: there are no containers here.",
    "mcp_servers": "Connect to them in the client, and send their tools.",
    "thread": "Send the whole conversation: none is kept here.",
    "logprobs": "Use /v1/chat/completions.",
    "top_logprobs": "Use /v1/chat/completions.",
    "max_completion_tokens": "Use max_tokens.",
    "max_tokens_to_sample": "Use max_tokens.",
    "prompt": "Use messages.",
    "input": "Use messages.",
    "system_prompt": "Use system.",
    "function_call": "Use tool_choice.",
}
#: The types of content of a role. Engines pass over any other in silence, or refuse it in words of their own.
_ROLE_TYPES = {
    "user": frozenset({"text", "image", "tool_result"}),
    "assistant": frozenset({"text", "thinking", "redacted_thinking", "tool_use"}),
    "system": frozenset({"text"}),
    "developer": frozenset({"text"}),
}
_RESULT_TYPES = frozenset({"text", "image"})
#: Type of content -> the texts that it has to have.
_REQUIRED = {"text": ("text",), "thinking": ("thinking",), "tool_use": ("id", "name"), "tool_result": ("tool_use_id",)}
#: The data of an image: it has no address that an engine could fetch.
_MEDIA = re.compile(r"data:|[A-Za-z0-9+/=_\s-]*\Z")
#: The format of an answer without another one.
_TEXT = {"type": "text"}


def canonical_messages(document: RequestDocument) -> None:
    """Change a request of Anthropic's API in place.

    Raises:
        Refusal: 400, naming the field.
    """
    body = document.fields
    _check_unserved(body)
    _check_compaction(body)
    for n, message in enumerate(body["messages"]):
        document.drop_nulls(message)
        if message.get("content") is None:
            raise required(f"messages[{n}].content")
        types = _ROLE_TYPES.get(message["role"])
        if types is None:
            raise not_one_of(f"messages[{n}].role", message["role"], ("user", "assistant"))
        _anthropic_parts(document, message["content"], f"messages[{n}].content", types)
    join_last(document, body["messages"])
    _anthropic_parts(document, body.get("system"), "system", _ROLE_TYPES["system"])
    names = _anthropic_tools(document)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        document.drop_nulls(choice)
        if choice.get("type") == "tool":
            named_tool(choice, {name: {} for name in names}, "tool_choice.name")
        elif choice.get("type") == "any" and not names:
            raise invalid("tool_choice", "it is 'any', but there are no tools.")
        elif choice.get("type") is None:
            raise required("tool_choice.type")
        elif choice.get("type") not in TOOL_CHOICES:
            raise not_one_of("tool_choice.type", choice.get("type"), TOOL_CHOICES)
    _check_thinking(body.get("thinking"))
    output = body.get("output_config")
    check_format_place(output, "output_config")
    effort = output.get("effort") if isinstance(output, dict) else None
    if effort is not None and effort not in EFFORTS:
        raise not_one_of("output_config.effort", effort, EFFORTS)
    for name, form in (
        ("output_format", body.get("output_format")),
        ("output_config.format", output.get("format") if isinstance(output, dict) else None),
    ):
        if isinstance(form, dict):
            if form.get("type") != "json_schema":
                raise not_one_of(f"{name}.type", form.get("type"), ("json_schema",))
            check_schema(form.get("schema"), f"{name}.schema")
        elif form is not None:
            raise invalid(name, "a format is an object with type and schema.")


def _check_unserved(body: Body) -> None:
    for name, hint in _OTHERS.items():
        if body.get(name) and body[name] != _TEXT:
            raise unsupported(name, "a message does not have it.", hint)
    if body.get("n", 1) not in (1, None):
        raise unsupported("n", "a message has one answer.", "Send the request several times.")


def _check_compaction(body: Body) -> None:
    """Refuse a request for a summary; for a count of tokens it has no effect in Anthropic's API either."""
    if body.get("compaction") and "max_tokens" in body:
        raise unsupported("compaction", "conversations are not summarized here.", "Ask for a summary in a message.")


def _check_thinking(thinking: Any) -> None:
    if not isinstance(thinking, dict):
        return
    kind = thinking.get("type")
    if kind is None:
        raise required("thinking.type")
    if kind not in THINKING:
        raise not_one_of("thinking.type", kind, THINKING)


def _anthropic_parts(document: RequestDocument, parts: Any, at: str, types: frozenset[str]) -> None:
    """Check the parts of a content that may have these types."""
    if not isinstance(parts, list):
        return
    _replace_documents(document, parts, at)
    for n, part in enumerate(parts):
        document.drop_nulls(part, "input")
        kind, where = part["type"], f"{at}[{n}]"
        if kind not in types:
            cause = f"{where}.type: content of the type {kind} is not taken here."
            hint = f"Accepted types: {', '.join(sorted(types))}."
            raise Refusal(Code.UNSUPPORTED_CONTENT, cause, hint=hint, param=f"{where}.type")
        for name in _REQUIRED.get(kind, ()):
            if not isinstance(part.get(name), str):
                raise required(f"{where}.{name}")
        if kind == "image":
            _check_image(document, part.get("source"), f"{where}.source")
            continue
        document.remove(part, "source")
        if kind == "tool_use" and not isinstance(part.get("input"), dict):
            document.put(part, "input", msgspec.json.decode(readable_arguments(part.get("input")).encode()))
        elif kind == "tool_result":
            _anthropic_parts(document, part.get("content"), f"{where}.content", _RESULT_TYPES)


def _replace_documents(document: RequestDocument, parts: list[Any], at: str) -> None:
    """Replace documents and search results by their texts."""
    if not any(part["type"] in DOCUMENTS for part in parts):
        return
    placed = [(part, f"{at}[{n}]") for n, part in enumerate(parts)]
    parts[:] = [
        one for part, where in placed for one in (as_parts(part, where) if part["type"] in DOCUMENTS else [part])
    ]
    document.is_changed = True


def _check_image(document: RequestDocument, source: Any, at: str) -> None:
    """Check that an image is in the request itself: engines pass over any other."""
    source = source if isinstance(source, dict) else {}
    document.drop_nulls(source)
    document.remove(source, "content")
    if isinstance(source.get("data"), str) and not _MEDIA.match(source["data"]):
        cause = f"{at}.data: media must be base64 or a data: URI."
        raise Refusal(Code.INVALID_REQUEST, cause, param=f"{at}.data")
    if source.get("url") or source.get("data"):
        return
    if source.get("type") not in ("base64", "url", None):
        cause = f"{at}.type: an image of the type {str(source['type'])[:100]} is not taken here."
        raise Refusal(Code.UNSUPPORTED_CONTENT, cause, hint="Send its data as base64.", param=f"{at}.type")
    raise required(f"{at}.{'url' if source.get('type') == 'url' else 'data'}")


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
