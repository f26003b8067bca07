"""The two ways in which a chat is called: with messages, or as before version 0.15 with a prompt."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from xinference.client.answers import Json

_WITH_PROMPT = ("system_prompt", "chat_history", "tools", "generate_config")
_WITH_MESSAGES = ("tools", "enable_thinking", "generate_config")
#: Before version 1.17 there was no `enable_thinking`.
_WITH_MESSAGES_BEFORE = ("tools", "generate_config")


def read_chat(said: str | Sequence[Json] | None, positional: Sequence[Any], named: Mapping[str, Any]) -> Json:
    """The fields of a chat request: its messages, tools and whatever `generate_config` has.

    Args:
        said: the messages, or a prompt, or None if `named` has ``prompt``.
        positional: what follows: after messages ``tools, enable_thinking, generate_config`` or (before 1.17)
            ``tools, generate_config``; after a prompt ``system_prompt, chat_history, tools, generate_config``.
        named: the same by name.

    Raises:
        TypeError: nothing is said, or something is given twice or is too much.
    """
    arguments = {name: value for name, value in named.items() if value is not None}
    if said is None:
        said = arguments.pop("prompt", None)
    if said is None or "prompt" in arguments:
        raise TypeError("chat() needs messages, or a prompt, and not both")
    arguments |= _by_name(_names(said, positional), positional, arguments)
    if isinstance(said, str):
        warnings.warn("chat() with a prompt is deprecated: give it messages", DeprecationWarning, stacklevel=4)
        messages = _conversation(said, arguments.pop("system_prompt", None), arguments.pop("chat_history", None))
    else:
        messages = list(said)
        if old := {"system_prompt", "chat_history"} & arguments.keys():
            raise TypeError(f"chat() takes {', '.join(sorted(old))} only with a prompt")
    return _fields(messages, **arguments)


def _names(said: str | Sequence[Json], positional: Sequence[Any]) -> Sequence[str]:
    if isinstance(said, str):
        return _WITH_PROMPT
    before = len(positional) == 2 and isinstance(positional[1], Mapping)
    return _WITH_MESSAGES_BEFORE if before else _WITH_MESSAGES


def _by_name(names: Sequence[str], values: Sequence[Any], named: Mapping[str, Any]) -> Json:
    if len(values) > len(names):
        raise TypeError(f"chat() takes at most {len(names) + 1} positional arguments, and got {len(values) + 1}")
    found = dict(zip(names, values, strict=False))
    if twice := found.keys() & named.keys():
        raise TypeError(f"chat() got {', '.join(sorted(twice))} twice")
    return {name: value for name, value in found.items() if value is not None}


def _conversation(prompt: str, system: str | None, history: Sequence[Json] | None) -> list[Json]:
    before = [{"role": "system", "content": system}] if system else []
    return [*before, *(history or ()), {"role": "user", "content": prompt}]


def _fields(
    messages: list[Json],
    *,
    tools: Sequence[Json] | None = None,
    enable_thinking: bool | None = None,
    generate_config: Mapping[str, Any] | None = None,
) -> Json:
    fields: Json = {"messages": messages, **(generate_config or {})}
    if tools is not None:
        fields["tools"] = list(tools)
    if enable_thinking is not None:
        # Templates call it by either name.
        both = {"enable_thinking": enable_thinking, "thinking": enable_thinking}
        fields["chat_template_kwargs"] = {**(fields.get("chat_template_kwargs") or {}), **both}
    return fields
