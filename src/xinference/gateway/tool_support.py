"""Refuses tools for a model whose calls its engine can't read: an answer would have the call in its text, or none."""

from __future__ import annotations

from typing import Any

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
    if not document.fields.get("tools"):
        return
    choice = _choice(document.fields.get("tool_choice"))
    if choice == "none" or (forces_calls and choice in _FORCED):
        return
    raise Refusal(Code.TOOLS_UNSUPPORTED, f"tools: {route.tools_refused}", param="tools")


def _choice(value: Any) -> str:
    """The kind of a choice: a text, or the type of an object."""
    if isinstance(value, dict):
        return str(value.get("type") or "function")
    return str(value or "auto")
