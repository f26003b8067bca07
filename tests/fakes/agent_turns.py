"""The answers of a model to an agent, by script: first a call of the agent's shell, then a last text.

Standard library only: the scriptable engine is a program of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
#: Names of the tools with which agents run commands, the preferred first, and the argument that takes the command.
SHELLS = {"exec_command": "cmd", "shell_command": "command", "Bash": "command", "shell": "command"}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


@dataclass(frozen=True)
class Turn:
    """What the model answers: a call of a tool (`name`, `arguments`), or the last text."""

    text: str
    name: str | None = None
    arguments: Json | None = None


def next_turn(body: Json, command: str, text: str) -> Turn:
    """A call while no result is in the messages and a shell is offered; else the text."""
    messages = json.dumps(body.get("messages", []))
    tools = {tool_name(tool) for tool in body.get("tools") or []}
    shell = next((name for name in SHELLS if name in tools), None)
    if shell is None or '"role": "tool"' in messages or '"tool_result"' in messages:
        return Turn(text)
    words: Any = ["bash", "-c", command] if shell == "shell" else command
    return Turn("", shell, {SHELLS[shell]: words, **({"description": "Write a file"} if shell == "Bash" else {})})


def tool_name(tool: Json) -> str:
    return str((tool.get("function") or tool).get("name"))


def events(path: str, turn: Turn, model: str) -> Iterator[bytes]:
    """The stream of a turn, in the form of the path: OpenAI's chats or Anthropic's messages."""
    if path.endswith("/messages"):
        yield from _message_events(turn, model)
    else:
        yield from _chat_events(turn, model)


def whole(path: str, turn: Turn, model: str) -> Json:
    """The same as one answer."""
    if path.endswith("/messages"):
        content, reason = _blocks(turn)
        usage = {"input_tokens": 7, "output_tokens": 5}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content}
        return message | {"stop_reason": reason, "stop_sequence": None, "usage": usage}
    calls = {"tool_calls": [_call(turn)]} if turn.name else {}
    message = {"role": "assistant", "content": turn.text, **calls}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if turn.name else "stop"}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": USAGE}


def _chat_events(turn: Turn, model: str) -> Iterator[bytes]:
    head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": model}
    delta: Json = {"role": "assistant", "content": turn.text}
    if turn.name:
        delta["tool_calls"] = [{"index": 0, **_call(turn)}]
    for choice in (
        {"index": 0, "delta": delta, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "tool_calls" if turn.name else "stop"},
    ):
        yield b"data: " + json.dumps(head | {"choices": [choice]}).encode() + b"\n\n"
    yield b"data: " + json.dumps(head | {"choices": [], "usage": USAGE}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _message_events(turn: Turn, model: str) -> Iterator[bytes]:
    (block,), reason = _blocks(turn)
    begin: Json = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
    }
    yield _event("message_start", message=begin | {"usage": {"input_tokens": 7, "output_tokens": 1}})
    if turn.name:
        delta = {"type": "input_json_delta", "partial_json": json.dumps(turn.arguments)}
        yield _event("content_block_start", index=0, content_block=block | {"input": {}})
    else:
        delta = {"type": "text_delta", "text": turn.text}
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield _event("content_block_delta", index=0, delta=delta)
    yield _event("content_block_stop", index=0)
    yield _event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 5})
    yield _event("message_stop")


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _blocks(turn: Turn) -> tuple[list[Json], str]:
    if turn.name:
        return [{"type": "tool_use", "id": "toolu_1", "name": turn.name, "input": turn.arguments}], "tool_use"
    return [{"type": "text", "text": turn.text}], "end_turn"


def _call(turn: Turn) -> Json:
    return {
        "id": "call_1",
        "type": "function",
        "function": {"name": turn.name, "arguments": json.dumps(turn.arguments)},
    }
