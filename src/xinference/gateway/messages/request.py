"""Translates a request of Anthropic's Messages API to a chat, for engines that have chats and no messages.

The request is in the form that `canonical_messages` makes, so its blocks and tools have their fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from xinference.engines.dialect import Body
from xinference.error_codes import Code
from xinference.gateway.canonical_fields import not_one_of, readable_arguments, required
from xinference.gateway.engine_requests import COMMON
from xinference.protocol.errors import Refusal

#: Fields that a chat does not have, or has in another form. All others are passed on, also those of engines.
_OWN = frozenset(
    {
        "messages", "system", "stop_sequences", "tools", "tool_choice", "thinking", "output_config", "output_format",
        "metadata", "cache_control", "context_management", "betas", "container", "inference_geo",
        # Fields of chats for which a message has no place, or another field.
        "n", "stop", "functions", "function_call", "stream_options", "logprobs", "top_logprobs",
        "max_completion_tokens", "response_format",
    }
)  # fmt: skip
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
#: Whether the model thinks; None: as its template says.
_THINKING = {"enabled": True, "disabled": False, "adaptive": None}
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
#: The beginning of a tool's result that is an error.
ERROR = "Error: "

#: A block of a message's content, and its place in the request.
Block = tuple[Body, str]


def chat_of(request: Body) -> Body:
    """The chat for a request of `/v1/messages`.

    Raises:
        Refusal: 400, naming the field that is wrong or not served.
    """
    # The messages come first: the replica is chosen by the bytes that follow them.
    chat: Body = {"messages": _messages(request), **{k: v for k, v in request.items() if k not in _OWN}}
    if request.get("stop_sequences"):
        chat["stop"] = request["stop_sequences"]
    if request.get("tools"):
        chat["tools"] = [_tool(tool) for tool in request["tools"]]
        _translate_choice(chat, request.get("tool_choice"))
    _translate_thinking(chat, request.get("thinking"))
    _translate_output(chat, request)
    if request.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    return chat


def text_to_count(request: Body) -> Body:
    """The request of `/tokenize` for a request of `/v1/messages/count_tokens`.

    Raises:
        Refusal: 400, naming the field that is wrong or not served.
    """
    chat = chat_of(request)
    counted: Body = {"messages": chat["messages"], "model": chat["model"]}
    if "tools" in chat and chat.get("tool_choice") != "none":
        counted["tools"] = chat["tools"]
    for name in ("chat_template_kwargs", "enable_thinking"):
        if name in chat:
            counted[name] = chat[name]
            COMMON[name](counted, chat[name])
    return counted


# -- messages ---------------------------------------------------------------------------------------------------


def _messages(request: Body) -> list[Body]:
    """The messages of the chat. Messages of one role in a row are one turn, as in Anthropic's API."""
    converted: list[Body] = []
    system = _joined(_text(block, at) for block, at in _blocks(request.get("system") or [], "system"))
    if system:
        converted.append({"role": "system", "content": system})
    placed = [(message, f"messages[{n}]") for n, message in enumerate(request["messages"])]
    for role, turn in groupby(placed, lambda each: _role(*each)):
        contents = [_blocks(message["content"], f"{at}.content") for message, at in turn]
        blocks = [block for content in contents for block in content]
        if role == "user":
            converted += _user(blocks)
        elif role == "assistant":
            converted.append(_assistant(contents))
        else:
            converted.append({"role": role, "content": _joined(_text(block, at) for block, at in blocks)})
    return converted


def _role(message: Body, at: str) -> str:
    role = _ROLES.get(message["role"])
    if role is None:
        raise not_one_of(f"{at}.role", message["role"], ("user", "assistant"))
    return role


def _blocks(content: str | list[Body], at: str) -> list[Block]:
    if isinstance(content, str):
        return [({"type": "text", "text": content}, at)]
    return [(block, f"{at}[{n}]") for n, block in enumerate(content)]


def _user(blocks: list[Block]) -> list[Body]:
    """The results of tools, which follow their calls, and a message of the rest.

    A chat's results are texts only, so their images are in the message.
    """
    results: list[Body] = []
    parts: list[Body] = []
    for block, at in blocks:
        if block["type"] != "tool_result":
            parts.append(_part(block, at))
            continue
        inner = [_part(*each) for each in _blocks(block.get("content") or [], f"{at}.content")]
        text = _joined(part["text"] for part in inner if part["type"] == "text")
        results.append(
            {
                "role": "tool",
                "tool_call_id": _member(block, "tool_use_id", at),
                "content": ERROR + text if block.get("is_error") else text,
            }
        )
        parts += [part for part in inner if part["type"] != "text"]
    if results and not parts:
        return results
    is_text = all(part["type"] == "text" for part in parts)
    return [*results, {"role": "user", "content": _joined(part["text"] for part in parts) if is_text else parts}]


def _assistant(contents: list[list[Block]]) -> Body:
    """One message of those that a model wrote in a row."""
    texts, thoughts, calls = [], [], []
    for content in contents:
        text = ""
        for block, at in content:
            if block["type"] == "thinking":
                thoughts.append(_member(block, "thinking", at))
            elif block["type"] == "tool_use":
                function = {"name": block["name"], "arguments": readable_arguments(block["input"])}
                calls.append({"id": _member(block, "id", at), "type": "function", "function": function})
            elif block["type"] != "redacted_thinking":  # it has nothing that a model reads
                text += _text(block, at)
        texts.append(text)
    message: Body = {"role": "assistant", "content": "\n\n".join(filter(None, texts))}
    if any(thoughts):
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
        message["content"] = message["content"] or None
    return message


def _part(block: Body, at: str) -> Body:
    """A text or an image as a chat has it."""
    if block["type"] == "image":
        return {"type": "image_url", "image_url": {"url": _image(block.get("source") or {}, f"{at}.source")}}
    return {"type": "text", "text": _text(block, at)}


def _image(source: Body, at: str) -> str:
    """The data URI of an image; the check of the request has refused any other address."""
    if source.get("url"):
        return str(source["url"])
    data = _member(source, "data", at)
    return data if data.startswith("data:") else f"data:{_member(source, 'media_type', at)};base64,{data}"


def _text(block: Body, at: str) -> str:
    if block["type"] != "text":
        cause = f"{at}.type: content of the type {block['type']} is not taken here."
        raise Refusal(Code.UNSUPPORTED_CONTENT, cause, param=f"{at}.type")
    return _member(block, "text", at)


def _joined(texts: Iterator[str]) -> str:
    return "\n".join(texts)


def _member(holder: Body, name: str, at: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise required(f"{at}.{name}")
    return value


# -- tools and options ------------------------------------------------------------------------------------------


def _tool(tool: Body) -> Body:
    function = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
    function["strict"] = tool.get("strict")
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _translate_choice(chat: Body, choice: Body | None) -> None:
    if choice is None:
        return
    if choice["type"] == "tool":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    else:
        chat["tool_choice"] = _CHOICES[choice["type"]]
    if choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False


def _translate_thinking(chat: Body, thinking: Body | None) -> None:
    if thinking is None:
        return
    switch = _THINKING[thinking["type"]]
    if switch is not None:
        chat["enable_thinking"] = switch


def _translate_output(chat: Body, request: Body) -> None:
    config = request.get("output_config")
    config = config if isinstance(config, dict) else {}
    form = config.get("format") or request.get("output_format")
    if isinstance(form, dict):
        chat["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": form["schema"], "strict": True},
        }
    effort = config.get("effort")
    if effort is not None:
        chat["reasoning_effort"] = _EFFORTS[effort]
