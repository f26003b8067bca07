"""Translates the older fields `functions` and `function_call` to tools, and the answer back.

OpenAI's API replaced them by `tools` and `tool_choice`. An answer to them has at most one call, in a field of its own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.engines.dialect import Body
from xinference.error_codes import Code
from xinference.gateway.canonical_chats import TOOL_CHOICES
from xinference.gateway.canonical_fields import invalid, not_one_of, required
from xinference.gateway.request_document import RequestDocument
from xinference.protocol.errors import Refusal

DATA, DONE = b"data: ", b"[DONE]"


def replace_functions(document: RequestDocument) -> None:
    """Replace the older fields of a chat, and the calls and results in its messages.

    Raises:
        Refusal: 400, the body has the older and the newer fields; or a name is missing, or unknown.
    """
    body = document.fields
    functions, choice = document.remove(body, "functions"), document.remove(body, "function_call")
    if functions is not None and body.get("tools"):
        cause = "functions is the older name of tools: a request has one of the two."
        raise Refusal(Code.INVALID_REQUEST, cause, param="functions")
    if not body.get("tools"):
        _check_names(functions or [], choice)
    if functions:
        document.put(body, "tools", [{"type": "function", "function": function} for function in functions])
        body.setdefault("parallel_tool_calls", False)
    if isinstance(choice, str) and (choice not in TOOL_CHOICES or (choice == "required" and not body.get("tools"))):
        raise not_one_of("function_call", choice, ("none", "auto"), ", or an object that names a function")
    if isinstance(choice, dict):
        choice = {"type": "function", "function": choice}
    if choice is not None:
        document.put(body, "tool_choice", choice)
    last = ""
    for n, message in enumerate(body["messages"]):
        call = document.remove(message, "function_call")
        if isinstance(call, dict) and not message.get("tool_calls"):
            last = f"call_{n}"
            document.put(message, "tool_calls", [{"id": last, "type": "function", "function": call}])
        elif message["role"] == "function":
            document.put(message, "role", "tool")
            message.setdefault("tool_call_id", last)


def _check_names(functions: list[Body], choice: Any) -> None:
    """Check the names here, so that a refusal has the fields that the client has sent."""
    names = [function.get("name") for function in functions]
    for n, name in enumerate(names):
        if not name:
            raise required(f"functions[{n}].name")
    if not isinstance(choice, dict):
        return
    name = choice.get("name")
    if not isinstance(name, str) or not name:
        raise required("function_call.name")
    if name not in names:
        raise invalid("function_call", f"it names {name[:100]!r}, which is not in functions.")


def answer_with_function(body: bytes) -> bytes:
    """The whole answer with the first call in `function_call`."""
    document = msgspec.json.decode(body)
    for choice in document.get("choices") or ():
        _replace_call(choice, choice.get("message") or {})
    return msgspec.json.encode(document)


def events_with_function(chunk: bytes) -> bytes:
    """Complete events of a stream with the first call in `function_call`."""
    if b'"tool_calls"' not in chunk:
        return chunk
    events = []
    for event in chunk.split(b"\n\n"):
        data = event.strip()
        if data.startswith(DATA) and not data.endswith(DONE):
            document = msgspec.json.decode(data[len(DATA) :])
            for choice in document.get("choices") or ():
                _replace_call(choice, choice.get("delta") or {})
            event = DATA + msgspec.json.encode(document)
        events.append(event)
    return b"\n\n".join(events)


def _replace_call(choice: Body, message: Body) -> None:
    for call in message.pop("tool_calls", None) or ():
        if call.get("index", 0) == 0:
            function = call.get("function") or {}
            message["function_call"] = {name: value for name, value in function.items() if value is not None}
            break
    if choice.get("finish_reason") == "tool_calls":
        choice["finish_reason"] = "function_call"
