"""The arguments of `chat`: messages, or a prompt as before version 0.15."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from xinference.client.answers import Json

_WITH_PROMPT = ("system_prompt", "chat_history", "tools", "generate_config")
_WITH_MESSAGES = ("tools", "enable_thinking", "generate_config")
#: The arguments before version 1.17, which had no `enable_thinking`.
_WITH_MESSAGES_BEFORE = ("tools", "generate_config")


def read_chat(conversation: str | Sequence[Json] | None, positional: Sequence[Any], named: Mapping[str, Any]) -> Json:
    """The fields of a chat request: messages, tools and the fields of `generate_config`.

    Args:
        conversation: the messages, or a prompt, or None if `named` has ``prompt``.
        positional: the further arguments: after messages ``tools, enable_thinking, generate_config`` or (before 1.17)
            ``tools, generate_config``; after a prompt ``system_prompt, chat_history, tools, generate_config``.
        named: the same by name.

    Raises:
        TypeError: there are neither messages nor a prompt, or an argument is repeated or unexpected.
    """
    arguments = {name: value for name, value in named.items() if value is not None}
    if conversation is None:
        conversation = arguments.pop("prompt", None)
    if conversation is None or "prompt" in arguments:
        raise TypeError("chat() needs messages, or a prompt, and not both")
    arguments |= _by_name(_names(conversation, positional), positional, arguments)
    if isinstance(conversation, str):
        warnings.warn("chat() with a prompt is deprecated: use messages", DeprecationWarning, stacklevel=4)
        messages = _messages(conversation, arguments.pop("system_prompt", None), arguments.pop("chat_history", None))
    else:
        messages = list(conversation)
        if old := {"system_prompt", "chat_history"} & arguments.keys():
            raise TypeError(f"chat() takes {', '.join(sorted(old))} only with a prompt")
    return _fields(messages, **arguments)


def _names(conversation: str | Sequence[Json], positional: Sequence[Any]) -> Sequence[str]:
    if isinstance(conversation, str):
        return _WITH_PROMPT
    before = len(positional) == 2 and isinstance(positional[1], Mapping)
    return _WITH_MESSAGES_BEFORE if before else _WITH_MESSAGES


def _by_name(names: Sequence[str], values: Sequence[Any], named: Mapping[str, Any]) -> Json:
    if len(values) > len(names):
        raise TypeError(f"chat() takes at most {len(names) + 1} positional arguments, and got {len(values) + 1}")
    arguments = dict(zip(names, values, strict=False))
    if repeated := arguments.keys() & named.keys():
        raise TypeError(f"chat() got {', '.join(sorted(repeated))} twice")
    return {name: value for name, value in arguments.items() if value is not None}


def _messages(prompt: str, system: str | None, history: Sequence[Json] | None) -> list[Json]:
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
        # Templates use either name.
        both = {"enable_thinking": enable_thinking, "thinking": enable_thinking}
        fields["chat_template_kwargs"] = {**(fields.get("chat_template_kwargs") or {}), **both}
    return fields
