"""Translates a request of the Responses API to a chat: every engine has chats, and few have all of this API."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from xinference.error_codes import Code
from xinference.gateway.canonical_fields import (
    FORMATS,
    check_format_place,
    check_schema,
    invalid,
    not_one_of,
    required,
    unsupported,
)
from xinference.gateway.part_fields import check_message
from xinference.gateway.responses.tools import Tools, translate_choice
from xinference.gateway.text_files import as_text
from xinference.protocol.errors import Refusal

Body = dict[str, Any]
#: Fields that would change the answer, or where it is kept, and that are not served here.
UNSERVED = {
    "background": "an answer is sent to the request that asks for it.",
    "conversation": "conversations are not kept here.",
    "context_management": "a conversation is never shortened here.",
    "prompt": "prompts are not kept here.",
    "moderation": "answers are not moderated here.",
    "functions": "a response has tools in their place.",
    "messages": "a response has input in their place.",
}
#: Fields that a chat does not have, or has in another form. All others are passed on, also those of engines.
_OWN = frozenset(
    {
        "input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning", "top_logprobs",
        "include", "max_tool_calls", "previous_response_id", "store", "truncation", "stream_options",
        "prompt_cache_key", "prompt_cache_retention",
        "safety_identifier", "service_tier", "metadata", "function_call", "n", *UNSERVED,
    }
)  # fmt: skip
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_ROLES = ("user", "assistant", "system", "developer")
_TEXT = ("input_text", "output_text", "text")
_FILE = "input_file"
#: The types of parts that chats have, too.
_MEDIA = ("image_url", "input_audio")
#: Records of a client or of a server's own tools. They have nothing that a model reads.
_RECORDS = frozenset(
    {
        "web_search_call", "file_search_call", "image_generation_call", "mcp_list_tools", "mcp_approval_request",
        "mcp_approval_response", "ghost_snapshot",
    }
)  # fmt: skip
#: The types of calls -> the field with the arguments. The call of a function has them as JSON text.
_CALLS = {
    "function_call": "arguments",
    "custom_tool_call": "input",
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
    "tool_search_call": "arguments",
    "mcp_call": "arguments",
    "code_interpreter_call": "code",
}
#: The types of results -> the field with the result.
_OUTPUTS = {
    "function_call_output": "output",
    "custom_tool_call_output": "output",
    "local_shell_call_output": "output",
    "shell_call_output": "output",
    "apply_patch_call_output": "output",
    "tool_search_output": "tools",
}
#: The types of results that may be a list of the parts of messages.
_WITH_PARTS = frozenset({"function_call_output", "custom_tool_call_output"})
#: The types of calls that have their result with them -> the fields with the result.
_OWN_OUTPUTS = {"mcp_call": ("output", "error"), "code_interpreter_call": ("outputs",)}


@dataclass
class Translation:
    """A request as a chat, and what its answer is made of."""

    chat: Body
    tools: Tools
    request: Body
    """The request without null."""
    items: list[Body] = field(default_factory=list)
    """The items of the input, with those of earlier responses."""


FindItem = Callable[[str], Body | None]


def _find_nothing(item_id: str) -> Body | None:
    return None


def _referenced(item: Body, find: FindItem, at: str) -> Body:
    """The item itself, in place of a reference to it.

    Raises:
        Refusal: 400, the item is not kept.
    """
    if item.get("type") != "item_reference" and (item.get("type") is not None or item.keys() != {"id"}):
        return item
    item_id = item.get("id")
    found = find(item_id) if isinstance(item_id, str) else None
    if found is None:
        raise invalid(f"{at}.id", "this server does not keep the item; send the item itself.")
    return found


def translate(body: Body, earlier: list[Body], find: FindItem = _find_nothing) -> Translation:
    """The chat for a request.

    Args:
        body: the decoded request.
        earlier: the items of the response that the request continues.
        find: returns the item of a kept response by its id.

    Raises:
        Refusal: 400, naming the field that is wrong or not served.
    """
    request = {name: value for name, value in body.items() if value is not None}
    _check_unserved(request)
    tools = Tools(request.get("tools") or [])
    given = request["input"]
    items = [*earlier, *([{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given)]
    messages = _Messages(tools)
    if request.get("instructions"):
        messages.add({"role": "system", "content": request["instructions"]})
    items = [_referenced(item, find, f"input[{n}]") for n, item in enumerate(items, -len(earlier))]
    for n, item in enumerate(items, -len(earlier)):
        check_message(item, f"input[{n}]")
        messages.add_item({k: v for k, v in item.items() if v is not None}, f"input[{n}]")
    finished = messages.finished()
    if not finished:
        raise invalid("input", "it has no message.")
    # The messages come first: the replica is chosen by the bytes that follow them.
    chat: Body = {"messages": finished, **{k: v for k, v in request.items() if k not in _OWN}}
    if "max_output_tokens" in request:
        chat["max_tokens"] = request["max_output_tokens"]
    if tools.chat:
        chat["tools"] = tools.chat
    translate_choice(chat, request.get("tool_choice"), tools)
    _translate_format(chat, request.get("text"))
    _translate_reasoning(chat, request.get("reasoning"))
    if request.get("top_logprobs") or _includes(request, "message.output_text.logprobs"):
        chat |= {"logprobs": True, "top_logprobs": request.get("top_logprobs", 0)}
    if request.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    return Translation(chat, tools, request, items)


def _includes(request: Body, name: str) -> bool:
    include = request.get("include")
    return isinstance(include, list) and name in include


def _check_unserved(request: Body) -> None:
    for name, cause in UNSERVED.items():
        if request.get(name) not in (None, False, [], {}):
            raise unsupported(name, cause, "Leave it out.")
    if request.get("n") not in (None, 1):
        raise unsupported("n", "a response has one answer.", "Send the request several times.")
    options = request.get("prompt_cache_options")
    if isinstance(options, dict) and options.get("prewarm"):
        raise unsupported("prompt_cache_options.prewarm", "each request is answered.", "Leave it out.")
    if request.get("truncation") not in (None, "disabled"):
        raise unsupported("truncation", "a conversation is never shortened here.", "Shorten the input.")


def _translate_format(chat: Body, text: Any) -> None:
    check_format_place(text, "text")
    form = text.get("format") if isinstance(text, dict) else None
    if form is None:
        return
    if not isinstance(form, dict):
        raise invalid("text.format", "a format is an object with a type.")
    kind = form.get("type")
    if kind is None:
        raise required("text.format.type")
    if kind not in FORMATS[:3]:
        raise not_one_of("text.format.type", kind, FORMATS[:3])
    if kind == "json_object":
        chat["response_format"] = {"type": kind}
    elif kind == "json_schema":
        check_schema(form.get("schema"), "text.format.schema")
        inner = {name: form[name] for name in ("name", "description", "schema", "strict") if form.get(name) is not None}
        chat["response_format"] = {"type": kind, "json_schema": {"name": "answer", **inner}}


def _translate_reasoning(chat: Body, reasoning: Any) -> None:
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    if effort is None:
        return
    if effort == "none":
        chat["enable_thinking"] = False
    elif isinstance(effort, str) and effort in _EFFORTS:
        chat["reasoning_effort"] = _EFFORTS[effort]
    else:
        raise not_one_of("reasoning.effort", effort, ("none", *_EFFORTS))


class _Messages:
    """The messages of a chat, made from items: what a model said in one turn is one message."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._messages: list[Body] = []
        self._thoughts = ""

    def add(self, message: Body) -> None:
        """Add a message; system messages at the beginning become one, as most templates take one only."""
        last = self._messages[-1] if self._messages else None
        if last is not None and len(self._messages) == 1 and last["role"] == "system" == message["role"]:
            last["content"] = f"{last['content']}\n\n{message['content']}"
        else:
            self._messages.append(message)

    def finished(self) -> list[Body]:
        """All messages."""
        if self._thoughts:
            self._assistant()
        return self._messages

    def add_item(self, item: Body, at: str) -> None:
        """Add one item of the input."""
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            self._message(item, at)
        elif kind == "reasoning":
            parts = item.get("content") or item.get("summary") or []
            self._thoughts += "\n".join(map(_text, parts)) if isinstance(parts, list) else str(parts)
        elif kind in _RECORDS:
            return
        elif kind in _CALLS:
            self._call(item, kind, at)
        elif kind in _OUTPUTS:
            self._output(item, kind, at)
        elif kind is None:
            raise required(f"{at}.type")
        else:
            cause = f"{at}.type: items of the type {str(kind)[:100]} are not taken here."
            hint = f"Accepted types: {', '.join(sorted(('message', 'reasoning', *_CALLS, *_OUTPUTS)))}."
            raise Refusal(Code.UNSUPPORTED_CONTENT, cause, hint=hint, param=f"{at}.type")

    def _message(self, item: Body, at: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise not_one_of(f"{at}.role", role, _ROLES)
        if "content" not in item:
            raise required(f"{at}.content")
        content = item["content"] if isinstance(item["content"], str) else _parts(item["content"], f"{at}.content")
        if role != "assistant":
            system = content if isinstance(content, str) else "\n".join(map(_text, content))
            self.add({"role": "user", "content": content} if role == "user" else {"role": "system", "content": system})
            return
        text = content if isinstance(content, str) else "".join(map(_text, content))
        message = self._assistant()
        before = message["content"]
        message["content"] = f"{before}\n\n{text}" if before else text

    def _assistant(self) -> Body:
        """The message of the current turn of the assistant, begun if there is none."""
        if not self._messages or self._messages[-1]["role"] != "assistant":
            self._messages.append({"role": "assistant", "content": None})
        message = self._messages[-1]
        if self._thoughts:
            message["reasoning_content"] = message.get("reasoning_content", "") + self._thoughts
            self._thoughts = ""
        return message

    def _call(self, item: Body, kind: str, at: str) -> None:
        call_id = item.get("call_id") or item.get("id")
        if not isinstance(call_id, str):
            raise required(f"{at}.call_id")
        value = item.get(_CALLS[kind])
        if kind in ("function_call", "custom_tool_call", "mcp_call"):
            if not item.get("name"):
                raise required(f"{at}.name")
            name = self._tools.full_name(item.get("namespace"), item["name"])
        else:
            name = kind.removesuffix("_call")
        if kind in ("custom_tool_call", "code_interpreter_call"):
            value = {_CALLS[kind]: value or ""}
        arguments = value if isinstance(value, str) else json.dumps(value or {}, ensure_ascii=False)
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        self._assistant().setdefault("tool_calls", []).append(call)
        if kind in _OWN_OUTPUTS:
            results = [item[name] for name in _OWN_OUTPUTS[kind] if item.get(name) is not None]
            content = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in results)
            self._messages.append({"role": "tool", "tool_call_id": call_id, "content": content})

    def _output(self, item: Body, kind: str, at: str) -> None:
        call_id = item.get("call_id") or item.get("id")
        if not isinstance(call_id, str):
            raise required(f"{at}.call_id")
        output = item.get(_OUTPUTS[kind], item.get("status", "") if kind == "apply_patch_call_output" else "")
        if isinstance(output, str):
            content = output
        elif kind in _WITH_PARTS:
            if not isinstance(output, list):
                raise invalid(f"{at}.output", "it is a text, or a list of parts.")
            content = _parts(output, f"{at}.output")
        else:  # it has a form of its own, which a model reads as JSON
            content = json.dumps(output, ensure_ascii=False)
        self._messages.append({"role": "tool", "tool_call_id": call_id, "content": content})


def _text(part: Any) -> str:
    return str(part.get("text") or "") if isinstance(part, dict) else ""


def _parts(parts: Any, at: str) -> Any:
    """The content of a message as a chat has it; one text if there is only text."""
    if not all(isinstance(part, dict) for part in parts):
        raise invalid(at, "each part is an object.")
    taken = [_part({k: v for k, v in part.items() if v is not None}, f"{at}[{n}]") for n, part in enumerate(parts)]
    if all(part["type"] == "text" for part in taken):
        has_file = any(part.get("type") == _FILE for part in parts)
        return ("\n\n" if has_file else "").join(part["text"] for part in taken)
    return taken


def _part(part: Body, at: str) -> Body:
    kind = part.get("type")
    if kind in _TEXT or kind == "refusal":
        name = "refusal" if kind == "refusal" else "text"
        if not isinstance(part.get(name), str):
            raise required(f"{at}.{name}")
        return {"type": "text", "text": part[name]}
    if kind == "input_image":
        url = part.get("image_url")
        if not isinstance(url, str):
            raise required(f"{at}.image_url")
        return {"type": "image_url", "image_url": {"url": url}}
    if kind == _FILE:
        return {"type": "text", "text": as_text(part, at)}
    if kind in _MEDIA:
        return part
    cause = f"{at}.type: content of the type {str(kind)[:100]} is not taken here."
    hint = f"Accepted types: {', '.join(sorted((*_TEXT, *_MEDIA, _FILE, 'input_image', 'refusal')))}."
    raise Refusal(Code.UNSUPPORTED_CONTENT, cause, hint=hint, param=f"{at}.type")
