"""Each value of each request in turn is replaced by one of another type: a refusal by type, or a judged body."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec
import pytest

from tests.hostile.generator import HostileRequest
from tests.hostile.judge import Judge
from tests.hostile.test_in_process import TRAPS, prepared
from tests.support.examples import DIVISOR
from xinference.engines.dialects import DIALECTS
from xinference.gateway.routes import DATA_PATHS

Body = dict[str, Any]
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":"b"}'}}
PICTURE = "data:image/png;base64,iVBORw0KGgo="
CHAT_MESSAGES = [
    {"role": "system", "content": "Be short.", "name": "n"},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": PICTURE}}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "r"},
    {"role": "tool", "tool_call_id": "c", "content": "b"},
    {"role": "user", "content": "c"},
]
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": {"type": "object"}}}
#: Values that a field of another type does not expect; each is valid JSON.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e300, "", "x", [], {}, [1], ["x", "y"], [None], [[]], [{}], {"type": 1},
    {"type": "x", "x": {}}, {"type": []}, {"name": None}, {"function": []},
    {"type": "function", "function": {"name": 1}},
)  # fmt: skip
ANTHROPIC = {
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": "b"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x", "is_error": False}]},
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "tool", "name": "f"},
    "thinking": {"type": "enabled", "budget_tokens": 20},
    "metadata": {"user_id": "u"},
}
#: A part of each type that a message may have.
PARTS: tuple[Body, ...] = (
    {"type": "text", "text": "a"}, {"type": "input_text", "text": "a"}, {"type": "output_text", "text": "a"},
    {"type": "refusal", "refusal": "no"}, {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
    {"type": "input_image", "image_url": PICTURE}, {"type": "image", "image": PICTURE},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,UklGRg=="}},
    {"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "redacted_thinking", "data": "d"},
    {"type": "reasoning", "text": "t"}, {"type": "reasoning_text", "text": "t"}, {"type": "summary_text", "text": "t"},
    {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "b"}},
    {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}], "is_error": True},
)  # fmt: skip
#: An item of each type that a response's input may have.
ITEMS: tuple[Body, ...] = (
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}], "id": "m"},
    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "t"}], "encrypted_content": "e"},
    {"type": "function_call", "call_id": "c", "name": "f", "namespace": "n", "arguments": "{}", "status": "completed"},
    {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"},
    {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
    {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "create_file", "path": "a", "diff": "d"}},
    {"type": "tool_search_call", "call_id": "c", "arguments": {"a": "b"}},
    {"type": "mcp_call", "id": "c", "name": "f", "arguments": "{}", "output": "o", "error": "e", "server_label": "s"},
    {"type": "code_interpreter_call", "id": "c", "code": "1", "outputs": [{"type": "logs", "logs": "l"}]},
    {"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "a"}]},
    {"type": "local_shell_call_output", "id": "c", "output": "o"},
    {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "o", "outcome": {"type": "exit"}}]},
    {"type": "apply_patch_call_output", "call_id": "c", "output": "o", "status": "completed"},
    {"type": "tool_search_output", "call_id": "c", "tools": [{"type": "function", "name": "f"}]},
    {"type": "web_search_call", "id": "w", "action": {"type": "search"}},
    {"id": "i"},
)  # fmt: skip
RESPONSE_TOOLS: tuple[Body, ...] = (
    {"type": "function", "function": FUNCTION},
    {
        "type": "custom",
        "name": "f",
        "description": "d",
        "format": {"type": "grammar", "syntax": "lark", "definition": "d"},
    },
    {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g", "parameters": {"type": "object"}}]},
    {"type": "local_shell"},
    {"type": "web_search", "filters": {"allowed_domains": ["a"]}},
)
#: Path -> bodies whose values are replaced.
ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
}
#: Fields of chats that other paths with messages may get, too; most are not in the forms of these paths.
FIELDS_OF_CHATS: Body = {
    "tool_choice": ALLOWED, "stop": ["a"], "stream_options": {"include_usage": True}, "logprobs": True, "functions": [],
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}, "function_call": "auto",
}  # fmt: skip
BODIES: dict[str, tuple[Body, ...]] = {
    "/v1/chat/completions": (
        {
            "messages": CHAT_MESSAGES, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}},
            "stop": ["a"], "logit_bias": {"1": 2}, "stream": True, "stream_options": {"include_usage": True}, "n": 1,
            "chat_template_kwargs": {"a": 1}, "metadata": {"a": "b"}, "logprobs": True, "top_logprobs": 2,
        },
        {"messages": CHAT_MESSAGES, "tools": [TOOL], "tool_choice": ALLOWED},
        {"messages": CHAT_MESSAGES[:2], "response_format": FORMAT, "seed": 1, "temperature": 0.5, "user": "u"},
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "b"},
            ],
            "functions": [FUNCTION], "function_call": {"name": "f"},
        },
        {
            "messages": [{"role": "user", "content": "a"}], "tools": [TOOL],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}},
        },
        *({"messages": [{"role": "user", "content": [part]}]} for part in PARTS),
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "refusal": "r"}]},
    ),
    "/v1/completions": (
        {"prompt": ["a", "b"], "suffix": "s", "logprobs": 1, "echo": False, "best_of": 1, "stop": "x", "stream": True},
        {"prompt": [[1, 2], [3]], "n": 1, "guided_choice": ["a"], "guided_json": {"type": "object"}},
    ),
    "/v1/responses": (
        {
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "x"},
                {"type": "item_reference", "id": "i"},
            ],
            "tools": [{"type": "function", **FUNCTION}], "tool_choice": {"type": "function", "name": "f"},
            "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}, "verbosity": "low"},
            "reasoning": {"effort": "low", "summary": "auto"}, "include": ["x"], "metadata": {"a": "b"},
            "truncation": "auto", "instructions": "i", "store": False,
        },
        {"input": "a", "stream": True, "stream_options": {"include_obfuscation": False}},
        *({"input": [{"role": "user", "content": "a"}, item]} for item in ITEMS),
        *({"input": [{"role": "user", "content": [part]}]} for part in PARTS),
        *({"input": [{"type": "function_call_output", "call_id": "c", "output": [part]}]} for part in PARTS),
        *({"input": "a", "tools": [tool]} for tool in RESPONSE_TOOLS),
        {
            "input": "a", "tools": [{"type": "function", **FUNCTION}],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        },
    ),
    "/v1/messages": (
        {**ANTHROPIC, "max_tokens": 50, "stop_sequences": ["a"], "top_k": 2},
        *({"messages": [{"role": "user", "content": [part]}], "max_tokens": 50} for part in PARTS),
        {
            "messages": [{"role": "user", "content": "a"}], "max_tokens": 5,
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
            "output_format": {"type": "json_schema", "schema": {"type": "object"}},
        },
    ),
    "/v1/messages/count_tokens": (ANTHROPIC,),
    "/v1/embeddings": ({"input": ["a", "b"], "encoding_format": "float", "dimensions": 2}, {"input": [[1], [2]]}),
    "/v1/rerank": (
        {"query": "a", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True},
    ),
    "/tokenize": (
        {"content": "a", "add_special": True},
        {"messages": CHAT_MESSAGES, "tools": [TOOL], **FIELDS_OF_CHATS},
    ),
    "/detokenize": ({"tokens": [1, 2]},),
    "/apply-template": (
        {"messages": CHAT_MESSAGES, "tools": [TOOL], "chat_template_kwargs": {"a": 1}, **FIELDS_OF_CHATS},
    ),
    "/infill": ({"input_prefix": "a", "input_suffix": "b", "input_extra": [{"text": "t", "filename": "f"}]},),
}  # fmt: skip


def places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to each value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (*at, name)
        yield from places(one, (*at, name))


def replaced(body: Body, place: tuple[str | int, ...], odd: Any) -> Body:
    """A copy of the body with `odd` at a place."""
    copy: Body = msgspec.json.decode(msgspec.json.encode(body))
    inner: Any = copy
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = odd
    return copy


def changes(path: str) -> Iterator[tuple[Body, tuple[str | int, ...], Any]]:
    """Each body of a path, and one odd value at one place, also in a field that the body lacks."""
    known = {field.encode_name: None for field in msgspec.structs.fields(DATA_PATHS[path].decoder.type)}
    for n, body in enumerate(BODIES[path]):
        absent = [(name,) for name in known.keys() - body.keys()] if n == 0 else []
        for place in [*places(body), *absent]:
            for odd in ODD:
                yield {"model": "m", **body}, place, odd


@pytest.mark.parametrize("path", sorted(BODIES))
@pytest.mark.parametrize("engine", sorted(DIALECTS))
def test_a_value_of_another_type_is_refused_or_judged(engine: str, path: str) -> None:
    judge = Judge(engine, TRAPS)
    seen = 0
    # Where examples are divided, each engine gets others.
    for body, place, odd in islice(changes(path), sorted(DIALECTS).index(engine), None, DIVISOR):
        request = HostileRequest(0, (), "m", path, msgspec.json.encode(replaced(body, place, odd)))
        try:
            arrived = prepared(request, engine)
        except Exception as error:
            error.add_note(f"{'.'.join(map(str, place))} = {odd!r}")
            raise
        seen += 1
        if arrived is not None:
            assert judge.fault(arrived) is None, (place, odd, judge.fault(arrived))
    assert seen > 100 / DIVISOR
