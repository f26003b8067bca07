"""Refuses tools for a model whose calls its engine can't parse: the call would stay in the text of the answer."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.gateway.request_document import RequestDocument
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import Request, Tokenize
from xinference.routing.table import Route

#: Choices by which a request forces a call, in the forms of all APIs.
_FORCED = frozenset({"required", "any", "tool", "function", "custom"})


def check_tools(route: Route, request: Request, document: RequestDocument, *, forces_calls: bool) -> None:
    """Check a request for a route with `Route.tools_refused`, after its canonical form is made.

    Args:
        forces_calls: the engine serves a call that the request forces; see `Dialect`.

    Raises:
        Refusal: 400 ``tools_unsupported``.
    """
    if isinstance(request, Tokenize) or not (getattr(request, "tools", None) or getattr(request, "functions", None)):
        return
    _refuse(route, document.fields.get("tools"), document.fields.get("tool_choice"), forces_calls=forces_calls)


def check_tools_again(before: Route, now: Route, body: bytes, *, forces_calls: bool) -> None:
    """Check the request `body`, in the engine's form, which waited until the model was loaded.

    Whether calls can be read may be known only when the weights have been read.

    Raises:
        Refusal: 400 ``tools_unsupported``.
    """
    if before.tools_refused is None and now.tools_refused is not None:
        fields = msgspec.json.decode(body, type=_ToolFields)
        _refuse(now, fields.tools, fields.tool_choice, forces_calls=forces_calls)


class _ToolFields(msgspec.Struct):
    tools: Any = None
    tool_choice: Any = None


def _refuse(route: Route, tools: Any, choice: Any, *, forces_calls: bool) -> None:
    kind = _choice(choice)
    if not tools or kind == "none" or (forces_calls and kind in _FORCED):
        return
    raise Refusal(Code.TOOLS_UNSUPPORTED, f"tools: {route.tools_refused}", param="tools")


def _choice(value: Any) -> str:
    """The kind of a choice: a text, or the type of an object."""
    if isinstance(value, dict):
        return str(value.get("type") or "function")
    return str(value or "auto")
