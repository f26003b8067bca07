"""The input of a call that the maximum number of tokens has cut.

Anthropic's API sends each argument when it is complete, so that a cut one never arrives: the input has those before it,
and the stop reason `max_tokens` says that it is not whole. Its SDK makes the same of the pieces of a stream.
"""

from __future__ import annotations

import json
import re
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def complete_arguments(text: str) -> dict[str, Any]:
    """The complete members of an object whose JSON ends too early; a number at the end may have more digits."""
    arguments: dict[str, Any] = {}
    at = _next(text, 0)
    try:
        while text[at : at + 1] in ("{", ","):
            name, at = _DECODER.raw_decode(text, _next(text, at + 1))
            colon = _next(text, at)
            value, at = _DECODER.raw_decode(text, _next(text, colon + 1))
            at = _next(text, at)
            if text[colon] != ":" or not isinstance(name, str) or (at == len(text) and _may_go_on(value)):
                break
            arguments[name] = value
    except (ValueError, RecursionError):
        pass
    return arguments


def _next(text: str, at: int) -> int:
    """The place of the next character that is no white space."""
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _may_go_on(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
