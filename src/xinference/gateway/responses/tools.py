"""The tools of a response as functions of a chat, and a chat's calls as the calls of those tools.

A tool with free text as its input is a function with one argument. The tools of a namespace are functions whose names
begin with it. Tools that OpenAI's servers run are refused by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from xinference.gateway.canonical_chats import TOOL_CHOICES
from xinference.gateway.canonical_fields import invalid, required, unsupported

Body = dict[str, Any]
SEPARATOR = "__"
_INPUT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
_SHELL = {
    "type": "object",
    "properties": {
        "command": {"type": "array", "items": {"type": "string"}},
        "working_directory": {"type": "string"},
        "timeout_ms": {"type": "integer"},
    },
    "required": ["command"],
}


@dataclass(frozen=True)
class Tool:
    """How the call of one function is written in a response."""

    kind: str
    """The item's type: ``function_call``, ``custom_tool_call`` or ``local_shell_call``."""
    name: str
    namespace: str | None = None


class Tools:
    """The tools of one request."""

    def __init__(self, tools: list[Body]) -> None:
        self.chat: list[Body] = []
        """The functions of the chat."""
        self._by_name: dict[str, Tool] = {}
        for n, tool in enumerate(tools):
            self._add(tool, f"tools[{n}]")

    def find(self, name: str) -> Tool:
        """The tool that the function of this name stands for."""
        return self._by_name.get(name) or Tool("function_call", name)

    def has(self, name: str) -> bool:
        """Whether there is a function of this name."""
        return name in self._by_name

    def full_name(self, namespace: str | None, name: str) -> str:
        """The function's name for a tool, which may be one of a namespace."""
        return f"{namespace}{SEPARATOR}{name}" if namespace else name

    def _add(self, tool: Any, at: str, namespace: str | None = None) -> None:
        if not isinstance(tool, dict):
            raise invalid(at, "a tool is an object.")
        kind = tool.get("type")
        if kind is None:
            raise required(f"{at}.type")
        if kind == "namespace" and namespace is None:
            name = _name(tool, at)
            for n, inner in enumerate(_list(tool.get("tools"), f"{at}.tools")):
                self._add(inner, f"{at}.tools[{n}]", name)
        elif kind == "function":
            inner = tool.get("function")
            described = inner if isinstance(inner, dict) else tool
            self._put("function_call", _name(described, at), described, described.get("parameters"), namespace)
        elif kind == "custom":
            form = tool.get("format")
            described = tool
            if isinstance(form, dict) and form.get("type") == "grammar":
                text = f"{tool.get('description') or ''}\n\nThe input has this grammar ({form.get('syntax')}):\n"
                described = {"description": f"{text}{form.get('definition')}".strip()}
            self._put("custom_tool_call", _name(tool, at), described, _INPUT, namespace)
        elif kind == "local_shell":
            self._put("local_shell_call", "local_shell", {"description": "Run a command."}, _SHELL, namespace)
        else:
            cause = f"tools of the type {str(kind)[:100]} are not taken here: they run on servers of OpenAI."
            raise unsupported(f"{at}.type", cause, "Switch it off in the client, or describe it as a function.")

    def _put(self, kind: str, name: str, described: Body, parameters: Any, namespace: str | None) -> None:
        full = self.full_name(namespace, name)
        self._by_name[full] = Tool(kind, name, namespace)
        function = {"name": full, "description": described.get("description"), "parameters": parameters}
        function["strict"] = described.get("strict")
        self.chat.append({"type": "function", "function": {k: v for k, v in function.items() if v is not None}})


def _name(tool: Body, at: str) -> str:
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        raise required(f"{at}.name")
    return name


def _list(value: Any, at: str) -> list[Any]:
    if not isinstance(value, list):
        raise required(at)
    return value


def translate_choice(chat: Body, choice: Any, tools: Tools) -> None:
    """Set the chat's choice of tools."""
    if choice is None:
        return
    if isinstance(choice, str):
        chat["tool_choice"] = choice
        return
    kind = choice.get("type")
    if kind in ("function", "custom"):
        chat["tool_choice"] = _named(choice, tools, "tool_choice")
    elif kind == "allowed_tools":
        named = [
            _named(one, tools, f"tool_choice.tools[{n}]")
            for n, one in enumerate(_list(choice.get("tools"), "tool_choice.tools"))
        ]
        chat["tool_choice"] = {
            "type": kind,
            "allowed_tools": {"mode": choice.get("mode") or "auto", "tools": named},
        }
    elif kind is None:
        raise required("tool_choice.type")
    else:
        cause = f"the type {str(kind)[:100]} is not taken here."
        raise unsupported(
            "tool_choice.type",
            cause,
            f"Use {', '.join(TOOL_CHOICES)}, or the types function, custom and allowed_tools.",
        )


def _named(choice: Any, tools: Tools, at: str) -> Body:
    name = _name(choice if isinstance(choice, dict) else {}, at)
    full = tools.full_name(choice.get("namespace"), name)
    if not tools.has(full):
        raise invalid("tool_choice", f"it names {name[:100]!r}, which is not in tools.")
    return {"type": "function", "function": {"name": full}}


def call_item(tools: Tools, name: str, call_id: str, arguments: str, suffix: str, status: str) -> Body:
    """The item of one call.

    Args:
        suffix: the end of the item's id, without its kind.
    """
    tool = tools.find(name)
    if tool.kind == "custom_tool_call":
        item: Body = {"id": f"ctc_{suffix}", "type": tool.kind, "status": status, "call_id": call_id, "name": tool.name}
        return item | {"input": custom_input(arguments)}
    if tool.kind == "local_shell_call":
        action = {"type": "exec", "env": {}, **_object(arguments)}
        return {"id": f"lsh_{suffix}", "type": tool.kind, "status": status, "call_id": call_id, "action": action}
    item = {"id": f"fc_{suffix}", "type": tool.kind, "status": status, "call_id": call_id, "name": tool.name}
    if tool.namespace:
        item["namespace"] = tool.namespace
    return item | {"arguments": arguments}


def custom_input(arguments: str) -> str:
    """The text that a model gave to a tool with free text as its input."""
    given = _object(arguments).get("input")
    return given if isinstance(given, str) else arguments


def _object(text: str) -> Body:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
