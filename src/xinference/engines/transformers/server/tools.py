"""Tool calls in the format of Hermes and Qwen: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

from .text import StopStrings

BEGIN, END = "<tool_call>", "</tool_call>"
#: The beginning of a call, up to its arguments.
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*(?P<name>"(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*')


@dataclass(frozen=True)
class ToolCall:
    """One call; `arguments` is JSON text, as in OpenAI's API."""

    name: str
    arguments: str

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's form, with a new id."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


class ToolCallParser:
    """Splits an answer, piece by piece, into text and calls; a call is returned when it is complete."""

    def __init__(self, forced: str | None = None) -> None:
        """`forced`: the answer consists of calls: of this function, or of any of them if it is empty."""
        self._forced = forced
        self._begin = StopStrings([BEGIN])
        self._inside: str | None = None
        self._after_call = False

    def add(self, text: str) -> tuple[str, list[ToolCall]]:
        """The text that cannot belong to a call, and the calls that are complete now."""
        shown, calls = "", []
        while text or self._inside:
            if self._inside is None:
                shown += self._outside(text)
                text = ""
                continue
            self._inside += text
            body, found, text = self._inside.partition(END)
            if not found:
                break
            self._inside = None
            call = _parse(body)
            if call is None:
                shown += f"{BEGIN}{body}{END}"
            else:
                calls.append(call)
                self._after_call = True
        return shown, calls

    def finish(self) -> str:
        """The rest at the end: an incomplete call is plain text."""
        left = self._begin.finish() if self._inside is None else BEGIN + self._inside
        self._inside = None
        return self._trim(left)

    def cut(self) -> tuple[str, ToolCall | None]:
        """The rest of an answer that was cut at its limit: the text, and the call with as much as there is of it."""
        call = None if self._inside is None else _parse_beginning(self._inside)
        if call is None and self._forced is None:
            return self.finish(), None
        if call is None and self._forced and not self._after_call:
            call = ToolCall(self._forced, "")
        self.finish()
        return "", call

    def _outside(self, text: str) -> str:
        """The text before a call; the text after its opening tag is stored."""
        shown = self._begin.add(text)
        if not self._begin.found:
            return self._trim(shown)
        self._inside, self._begin = self._begin.rest, StopStrings([BEGIN])
        return self._trim(shown)

    def _trim(self, text: str) -> str:
        """Line breaks around calls belong to the format, not to the answer."""
        if not self._after_call:
            return text
        text = text.lstrip()
        self._after_call = not text
        return text


def _parse(body: str) -> ToolCall | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    return ToolCall(value["name"], _as_text(value.get("arguments", value.get("parameters", {}))))


def _parse_beginning(body: str) -> ToolCall | None:
    """The call of a text that ends before it is complete; None: it ends before the arguments."""
    head = _HEAD.match(body)
    if head is None:
        return None
    try:
        name: str = json.loads(head["name"])
    except ValueError:
        return None
    rest = body[head.end() :]
    try:
        arguments, _ = json.JSONDecoder().raw_decode(rest)
    except ValueError:
        return ToolCall(name, rest)
    return ToolCall(name, _as_text(arguments))


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
