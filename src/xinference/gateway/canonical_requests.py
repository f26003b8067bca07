"""Brings a body into the form that every engine reads, and refuses by name what no engine does.

The APIs allow several forms for one meaning: null for an absent field, any string as the arguments of an earlier call,
an empty string among the stop texts, `functions` for tools. Engines read some of them only, and answer a mistake with a
status of their own choice. A body that cannot differ from the common form is not decoded.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.gateway.legacy_functions import replace_functions
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import (
    AnthropicMessages,
    Chat,
    Completion,
    CountTokens,
    Opaque,
    Request,
    Responses,
    Template,
)

Body = dict[str, Any]
TOOL_CHOICES = ("none", "auto", "required")
#: The formats of an answer; an engine refuses one that it does not have.
FORMATS = ("text", "json_object", "json_schema", "structural_tag")
#: The argument that holds what a model wrote in place of a JSON object.
UNREADABLE = "unreadable_arguments"
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


def canonical(request: Request, body: bytes) -> bytes:
    """The body in the common form; the same bytes if it has that form already.

    Args:
        request: `body` decoded; empty stop texts are removed from it, too.

    Raises:
        Refusal: 400, naming the field.
    """
    if isinstance(request, Responses) or not _may_differ(request, body):
        return body
    document: Body = msgspec.json.decode(body)
    before = msgspec.json.encode(document)
    _drop_nulls(document)
    _drop_empty_stops(request, document)
    if isinstance(request, Chat):
        _check_unserved(document)
        replace_functions(document)
        if isinstance(request.function_call, dict):
            request.tool_choice = Opaque()
    if isinstance(request, (Chat, Template)):
        _chat(document)
    elif isinstance(request, CountTokens | AnthropicMessages):
        _anthropic(document)
    elif isinstance(request, Completion):
        _check_completion(document)
    check_format(document.get("response_format"), "response_format")
    after = msgspec.json.encode(document)
    return body if after == before else after


def _may_differ(request: Request, body: bytes) -> bool:
    """Whether the body may have another form. A plain chat pays for this alone, so it calls nothing."""
    if (
        b"null" in body
        or b'"type"' in body
        or b'"stop' in body
        or b'"tool_c' in body
        or b'"function' in body
        or b'"response_f' in body
    ):
        return True
    if request.__class__ is Chat or isinstance(request, (Chat, Template)):
        messages = request.messages
        if len(messages) > 1 and messages[-1].role == "assistant" == messages[-2].role:
            return True
        for message in messages:
            if message.content is None:
                return True
        return isinstance(request, Chat) and (
            request.web_search_options is not None or request.modalities is not None or request.audio is not None
        )
    return isinstance(request, (Completion, AnthropicMessages, CountTokens))


def required(param: str) -> Refusal:
    """The refusal of a body without this field."""
    return Refusal(Code.INVALID_REQUEST, f"{param} is required.", param=param)


def invalid(param: str, cause: str) -> Refusal:
    """The refusal of a field's value."""
    return Refusal(Code.INVALID_REQUEST, f"{param}: {cause}", param=param)


def unsupported(param: str, cause: str, hint: str | None = None) -> Refusal:
    """The refusal of a field that the API has and this server does not serve."""
    return Refusal(Code.UNSUPPORTED_FIELD, f"{param}: {cause}", hint=hint, param=param)


# -- every body -------------------------------------------------------------------------------------------------


def _drop_nulls(value: Body, *kept: str) -> None:
    for name in [name for name, inner in value.items() if inner is None and name not in kept]:
        del value[name]
    options = value.get("stream_options")
    if isinstance(options, dict):
        _drop_nulls(options)


def _drop_empty_stops(request: Request, document: Body) -> None:
    """Remove empty stop texts: an engine would end the answer at once. Without another, the field is absent."""
    for name in ("stop", "stop_sequences", "stop_regex"):
        stops = document.get(name)
        given = [stops] if isinstance(stops, str) else stops
        if not isinstance(given, list) or "" not in given:
            continue
        left = [stop for stop in given if stop != ""]
        if left:
            document[name] = left
        else:
            del document[name]
        if hasattr(request, name):
            setattr(request, name, left or None)


def check_format(value: Any, param: str) -> None:
    """Check the form of an answer's format; None: there is none.

    Raises:
        Refusal: 400, naming the field that is wrong or missing.
    """
    if not isinstance(value, dict):
        return
    _drop_nulls(value)
    kind = value.get("type")
    if kind is None:
        raise required(f"{param}.type")
    if kind not in FORMATS:
        raise invalid(f"{param}.type", f"{str(kind)[:100]!r} is no format; there are {', '.join(FORMATS)}.")
    if kind != "json_schema":
        return
    inner = value.get("json_schema")
    if not isinstance(inner, dict):
        raise required(f"{param}.json_schema")
    _drop_nulls(inner)
    check_schema(inner.get("schema"), f"{param}.json_schema.schema")


def check_schema(schema: Any, param: str) -> None:
    """Check that there is a schema, which is an object or a truth value."""
    if schema is None:
        raise required(param)
    if not isinstance(schema, (dict, bool)):
        raise invalid(param, "a JSON schema is an object.")


def _check_completion(body: Body) -> None:
    best_of = body.get("best_of")
    if best_of is not None:
        if best_of != 1 and best_of != body.get("n", 1):
            raise unsupported("best_of", "no engine here chooses among more answers than n.", "Ask for them by n.")
        del body["best_of"]
    if body.get("suffix") == "":
        del body["suffix"]


def _check_unserved(body: Body) -> None:
    """Refuse what would change the answer and no engine does; hints for a cache or a bill are passed over."""
    if body.get("web_search_options") is not None:
        raise unsupported("web_search_options", "models here cannot search the web.", "Leave it out.")
    modalities = body.get("modalities")
    if (isinstance(modalities, list) and modalities != ["text"] and modalities) or body.get("audio") is not None:
        raise unsupported("modalities", "models here answer in text only.", "Leave modalities and audio out.")


# -- chats ------------------------------------------------------------------------------------------------------


def _chat(body: Body) -> None:
    messages = body["messages"]
    for n, message in enumerate(messages):
        _message(message, f"messages[{n}]")
    _join_last(messages)
    tools = _tools(body)
    choice = body.get("tool_choice")
    if choice is not None:
        _tool_choice(body, choice, tools)


def _message(message: Body, at: str) -> None:
    _drop_nulls(message, "content")
    content, role = message.get("content"), message["role"]
    if isinstance(content, list):
        message["content"] = content = _parts(message, content, f"{at}.content")
    if not message.get("tool_calls"):
        message.pop("tool_calls", None)
    if content is None and "tool_calls" not in message:
        if role not in ("assistant", "tool", "function"):
            raise required(f"{at}.content")
        message["content"] = ""
    for n, call in enumerate(message.get("tool_calls", ())):
        _call(call, f"{at}.tool_calls[{n}]")


def _parts(message: Body, parts: list[Any], at: str) -> Any:
    """The parts of a message's content as engines read them; a text if nothing is left of them."""
    taken: list[Body] = []
    for n, part in enumerate(parts):
        _drop_nulls(part)
        kind = part["type"]
        if kind in TEXT_PARTS:
            _check_text(part, f"{at}[{n}]")
            part["type"] = "text"
            part.pop("annotations", None)
        elif kind == "refusal":
            part = {"type": "text", "text": part.get("refusal", part.get("text", ""))}
        elif kind in ("thinking", "reasoning", "reasoning_text", "summary_text", "redacted_thinking"):
            thought = part.get("thinking") or part.get("text")
            if isinstance(thought, str):
                message["reasoning_content"] = message.get("reasoning_content", "") + thought
            continue
        elif kind in ("image_url", "input_audio", "audio_url") and part.get(kind) is None:
            raise required(f"{at}[{n}].{kind}")
        taken.append(part)
    return taken or ""


def _check_text(part: Body, at: str) -> None:
    if not isinstance(part.get("text"), str):
        raise required(f"{at}.text")


def _call(call: Body, at: str) -> None:
    """Check an earlier call, and make its arguments an object's JSON: a model may have written anything."""
    _drop_nulls(call)
    kind = call.get("type")
    if kind is None:
        raise required(f"{at}.type")
    if kind != "function":
        raise unsupported(f"{at}.type", f"calls of the type {str(kind)[:100]} are not taken here.", "Use function.")
    function = call.get("function")
    if not isinstance(function, dict):
        raise required(f"{at}.function")
    _drop_nulls(function)
    if not function.get("name"):
        raise required(f"{at}.function.name")
    function["arguments"] = readable_arguments(function.get("arguments"))


def readable_arguments(arguments: Any) -> str:
    """The arguments of a call as the JSON of an object; what is none is passed under a name of its own."""
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    text = arguments if isinstance(arguments, str) else ""
    if not text.strip():
        return "{}"
    try:
        value = msgspec.json.decode(text.encode())
    except (ValueError, RecursionError):
        value = text
    if isinstance(value, dict):
        return text
    return "{}" if value is None else json.dumps({UNREADABLE: value}, ensure_ascii=False)


def _join_last(messages: list[Body]) -> None:
    """Join assistant messages at the end: they begin one answer, and engines take one message for that."""
    while len(messages) > 1 and messages[-1]["role"] == "assistant" == messages[-2]["role"]:
        last, first = messages[-1], messages[-2]
        if last.get("tool_calls") or first.get("tool_calls"):
            return
        messages.pop()
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


def _tools(body: Body) -> dict[str, Body]:
    """The checked tools by name."""
    tools = body.get("tools")
    if not tools:
        body.pop("tools", None)
        return {}
    named: dict[str, Body] = {}
    for n, tool in enumerate(tools):
        at = f"tools[{n}]"
        _drop_nulls(tool)
        kind = tool.get("type")
        if kind is None:
            raise required(f"{at}.type")
        if kind != "function":
            cause = f"tools of the type {str(kind)[:100]} are not taken here."
            raise unsupported(f"{at}.type", cause, "Describe it as a function.")
        function = tool.get("function")
        if not isinstance(function, dict):
            raise required(f"{at}.function")
        _drop_nulls(function)
        if not function.get("name"):
            raise required(f"{at}.function.name")
        named[function["name"]] = tool
    return named


def _tool_choice(body: Body, choice: Any, tools: dict[str, Body]) -> None:
    if isinstance(choice, str):
        if choice not in TOOL_CHOICES:
            listed = ", ".join(TOOL_CHOICES)
            raise invalid("tool_choice", f"{choice[:100]!r} is none of {listed}, and no object that names a tool.")
        if not tools:
            if choice == "required":
                raise invalid("tool_choice", "it is 'required', but there are no tools.")
            del body["tool_choice"]
        return
    kind = choice.get("type")
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools")
        if not isinstance(allowed, dict):
            raise required("tool_choice.allowed_tools")
        _allow(body, allowed, tools)
    elif kind in ("function", None):
        named_tool(choice.get("function"), tools, "tool_choice.function.name")
    else:
        raise unsupported("tool_choice.type", f"the type {str(kind)[:100]} is not taken here.")


def named_tool(function: Any, tools: dict[str, Body], at: str) -> Body:
    """The tool that this object names.

    Raises:
        Refusal: 400, it names none, or one that is not there.
    """
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise required(at)
    if name not in tools:
        cause = f"tool_choice names {name[:100]!r}, which is not in tools."
        raise Refusal(Code.INVALID_REQUEST, cause, param="tool_choice")
    return tools[name]


def _allow(body: Body, allowed: Body, tools: dict[str, Body]) -> None:
    """Pass only the tools that the request allows."""
    at = "tool_choice.allowed_tools"
    mode, named = allowed.get("mode") or "auto", allowed.get("tools")
    if mode not in ("auto", "required"):
        raise invalid(f"{at}.mode", "it is neither 'auto' nor 'required'.")
    if not isinstance(named, list) or not named:
        raise required(f"{at}.tools")
    body["tools"] = [
        named_tool(one.get("function", one) if isinstance(one, dict) else None, tools, f"{at}.tools[{n}].function.name")
        for n, one in enumerate(named)
    ]
    body["tool_choice"] = mode


# -- Anthropic's messages ---------------------------------------------------------------------------------------


def _anthropic(body: Body) -> None:
    for n, message in enumerate(body["messages"]):
        _drop_nulls(message)
        if message.get("content") is None:
            raise required(f"messages[{n}].content")
        _anthropic_parts(message["content"], f"messages[{n}].content")
    _anthropic_parts(body.get("system"), "system")
    names = _anthropic_tools(body)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        _drop_nulls(choice)
        if choice.get("type") == "tool":
            named_tool(choice, {name: {} for name in names}, "tool_choice.name")
        elif choice.get("type") == "any" and not names:
            raise invalid("tool_choice", "it is 'any', but there are no tools.")
    output = body.get("output_config")
    for name, form in (
        ("output_format", body.get("output_format")),
        ("output_config.format", output.get("format") if isinstance(output, dict) else None),
    ):
        if isinstance(form, dict) and form.get("type") == "json_schema":
            check_schema(form.get("schema"), f"{name}.schema")


def _anthropic_parts(parts: Any, at: str) -> None:
    if not isinstance(parts, list):
        return
    for n, part in enumerate(parts):
        _drop_nulls(part, "input")
        if part["type"] == "text":
            _check_text(part, f"{at}[{n}]")
        elif part["type"] == "tool_use":
            if not isinstance(part.get("name"), str):
                raise required(f"{at}[{n}].name")
            if not isinstance(part.get("input"), dict):
                part["input"] = msgspec.json.decode(readable_arguments(part.get("input")).encode())
        elif part["type"] == "tool_result":
            _anthropic_parts(part.get("content"), f"{at}[{n}].content")


def _anthropic_tools(body: Body) -> list[str]:
    names: list[str] = []
    for n, tool in enumerate(body.get("tools") or ()):
        _drop_nulls(tool)
        kind = tool.get("type", "custom")
        if kind != "custom":
            cause = f"tools of the type {str(kind)[:100]} are not taken here."
            raise unsupported(f"tools[{n}].type", cause, "Describe it by name and input_schema.")
        for name in ("name", "input_schema"):
            if not tool.get(name) and tool.get(name) != {}:
                raise required(f"tools[{n}].{name}")
        names.append(tool["name"])
    return names
