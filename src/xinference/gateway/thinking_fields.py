"""Reads how much a chat may think from `thinking`, `reasoning` and `think`, which other servers have."""

from __future__ import annotations

from typing import Any, get_args

from xinference.engines.dialect import Body
from xinference.gateway.canonical_fields import invalid, not_one_of
from xinference.gateway.request_document import RequestDocument
from xinference.protocol.field_types import Effort
from xinference.protocol.requests import Chat

#: The types of `thinking` -> whether the model thinks; None: it decides itself.
_TYPES = {"enabled": True, "disabled": False, "adaptive": None, "auto": None}
_EFFORTS: tuple[str, ...] = get_args(Effort)
FIELDS = ("thinking", "reasoning", "think")


def replace_thinking(request: Chat, document: RequestDocument) -> None:
    """Replace these fields by `enable_thinking` and `reasoning_effort`, which win if the chat has them, too.

    Raises:
        Refusal: 400, naming the member with a wrong value.
    """
    fields = document.fields
    given = {name: value for name in FIELDS if (value := document.remove(fields, name)) is not None}
    if not given:
        return
    effort, switch = _read_reasoning(given.get("reasoning"))
    if "thinking" in given:
        switch = _read_thinking(given["thinking"])
    if "think" in given:
        effort, switch = _read_think(given["think"])
    if switch is not None and request.enable_thinking is None:
        request.enable_thinking = switch
        document.put(fields, "enable_thinking", switch)
    if effort is not None and request.reasoning_effort is None:
        document.put(fields, "reasoning_effort", effort)


def _read_thinking(thinking: Any) -> bool | None:
    if isinstance(thinking, bool):
        return thinking
    kind = _object(thinking, "thinking").get("type")
    if kind is None:
        return None
    if not isinstance(kind, str) or kind not in _TYPES:
        raise not_one_of("thinking.type", kind, _TYPES)
    return _TYPES[kind]


def _read_think(think: Any) -> tuple[str | None, bool | None]:
    """The effort, and whether the model thinks, of Ollama's field; None: not given."""
    if isinstance(think, bool):
        return None, think
    if think not in _EFFORTS:
        raise not_one_of("think", think, ("true", "false", *_EFFORTS))
    return think, None


def _read_reasoning(reasoning: Any) -> tuple[str | None, bool | None]:
    """The effort, and whether the model thinks; None: not given."""
    if reasoning is None:
        return None, None
    members = _object(reasoning, "reasoning")
    effort, switch = members.get("effort"), members.get("enabled")
    if effort is not None and effort not in _EFFORTS:
        raise not_one_of("reasoning.effort", effort, _EFFORTS)
    if switch is not None and not isinstance(switch, bool):
        raise invalid("reasoning.enabled", "it is true or false.")
    return (None, False) if effort == "none" else (effort, switch)


def _object(value: Any, name: str) -> Body:
    if not isinstance(value, dict):
        raise invalid(name, "it is an object.")
    return value
