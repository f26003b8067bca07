"""Messages in Anthropic's form from the answers and streams of chats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import in_one_test
from xinference.gateway.messages.answer import MessageBuilder, token_count
from xinference.gateway.messages.cut_calls import complete_arguments
from xinference.records.tokens import read_tokens

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
COUNTS = {"input_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": 2}


def call(arguments: str | None, index: int = 0, name: str = "look") -> dict[str, Any]:
    return {"index": index, "id": f"c{index}", "type": "function", "function": {"name": name, "arguments": arguments}}


def whole(message: dict[str, Any], finish: str = "stop", **choice: Any) -> dict[str, Any]:
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": finish, **choice}], "usage": USAGE}
    body = MessageBuilder("m", ["END"]).whole(json.dumps(answer).encode())
    tokens = read_tokens(body)
    assert tokens is not None and (tokens.prompt, tokens.cached, tokens.output) == (7, 3, 2)
    made: dict[str, Any] = json.loads(body)
    return made


def sent(*deltas: dict[str, Any], finish: str = "stop", at_once: bool = False, **choice: Any) -> list[tuple[str, Any]]:
    """The events of a stream, each with its name."""
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish, **choice}]})
    chunks.append({"choices": [], "usage": USAGE})
    return events([json.dumps(chunk).encode() for chunk in chunks] + [b"[DONE]"], at_once=at_once)


def events(data: list[bytes], *, at_once: bool = False) -> list[tuple[str, Any]]:
    builder = MessageBuilder("m", ["END"])
    lines = [b"data: " + each + b"\n\n" for each in data]
    body = b"".join(map(builder.events, [b"".join(lines)] if at_once else lines))
    found = []
    for event in body.decode().removesuffix("\n\n").split("\n\n") if body else []:
        name, line = event.split("\n")
        found.append((name.removeprefix("event: "), json.loads(line.removeprefix("data: "))))
        assert found[-1][0] == found[-1][1]["type"]
    return found


def assembled(stream: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The blocks of a stream, as a client assembles them; checks the order of the events."""
    blocks: list[dict[str, Any]] = []
    is_open = False
    for kind, event in stream[1:-2]:
        if kind == "content_block_start":
            assert not is_open and event["index"] == len(blocks)
            blocks.append(event["content_block"] | {"json": ""})
            is_open = True
            continue
        assert is_open and event["index"] == len(blocks) - 1
        if kind == "content_block_stop":
            is_open = False
            continue
        assert kind == "content_block_delta"
        delta = event["delta"]
        name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "json"}[delta["type"]]
        blocks[-1][name] += delta["partial_json" if name == "json" else name]
    assert not is_open
    for block in blocks:
        given = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(given or "{}")
    assert [stream[0][0], *(kind for kind, _ in stream[-2:])] == ["message_start", "message_delta", "message_stop"]
    return blocks


TEXT = {"type": "text", "text": "hello"}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}
USE = {"type": "tool_use", "id": "c0", "name": "look", "input": {"at": 1}}

ANSWERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = {
    "a text": (
        {"content": "hello"},
        [{"role": "assistant", "content": ""}, {"content": "hel"}, {"content": "lo"}],
        [TEXT],
    ),
    "nothing": ({"content": ""}, [{"role": "assistant", "content": ""}], []),
    "thoughts of llama.cpp": (
        {"content": "hello", "reasoning_content": "hm"},
        [{"reasoning_content": "h"}, {"reasoning_content": "m"}, {"content": "hello"}],
        [THOUGHT, TEXT],
    ),
    "thoughts of vLLM": (
        {"content": "hello", "reasoning": "hm"},
        [{"reasoning": "hm"}, {"content": "hello"}],
        [THOUGHT, TEXT],
    ),
    "a call": (
        {"content": None, "tool_calls": [call('{"at": 1}')]},
        [{"tool_calls": [call("")]}, {"tool_calls": [{"index": 0, "function": {"arguments": '{"at": 1}'}}]}],
        [USE],
    ),
    "a text and two calls": (
        {"content": "hello", "tool_calls": [call('{"at": 1}'), call(None, 1)]},
        [
            {"content": "hello"},
            {"tool_calls": [call('{"at"')]},
            {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}, call(None, 1)]},
        ],
        [TEXT, USE, {"type": "tool_use", "id": "c1", "name": "look", "input": {}}],
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("at_once", [False, True])
def test_an_answer_and_its_stream_have_the_same_blocks(name: str, at_once: bool) -> None:
    message, deltas, blocks = ANSWERS[name]
    answer = whole(message)
    assert answer["content"] == blocks
    assert (answer["type"], answer["role"], answer["model"], answer["usage"]) == ("message", "assistant", "m", COUNTS)
    stream = sent(*deltas, at_once=at_once)
    assert assembled(stream) == blocks
    start = stream[0][1]["message"]
    assert (start["content"], start["stop_reason"], start["id"][:4]) == ([], None, "msg_")
    end = stream[-2][1]
    assert end["usage"] == COUNTS
    assert end["delta"] == {"stop_reason": answer["stop_reason"], "stop_sequence": answer["stop_sequence"]}


@pytest.mark.parametrize(
    ("finish", "choice", "expected"),
    [
        ("stop", {}, ("end_turn", None)),
        ("length", {}, ("max_tokens", None)),
        ("content_filter", {}, ("refusal", None)),
        ("stop", {"stop_reason": "END"}, ("stop_sequence", "END")),
        ("stop", {"stop_reason": "<|im_end|>"}, ("end_turn", None)),
        ("stop", {"stop_reason": 7}, ("end_turn", None)),
        ("tool_calls", {}, ("tool_use", None)),
    ],
)
def test_the_end_has_anthropics_reason(finish: str, choice: dict[str, Any], expected: Any) -> None:
    answer = whole({"content": "a"}, finish, **choice)
    assert (answer["stop_reason"], answer["stop_sequence"]) == expected
    delta = sent({"content": "a"}, finish=finish, **choice)[-2][1]["delta"]
    assert (delta["stop_reason"], delta["stop_sequence"]) == expected


def test_a_forced_call_that_ends_with_stop_is_a_use_of_a_tool() -> None:
    """OpenAI and vLLM end a call of a named tool by "stop"."""
    assert whole({"tool_calls": [call("{}")]}, "stop")["stop_reason"] == "tool_use"
    assert sent({"tool_calls": [call("{}")]})[-2][1]["delta"]["stop_reason"] == "tool_use"
    assert whole({"tool_calls": [call('{"at": ')]}, "length")["stop_reason"] == "max_tokens"


CUT = [
    ("", {}),
    ("{", {}),
    ('{"at": ', {}),
    ('{"at": "Ro', {}),
    ('{"at": "Rome"', {"at": "Rome"}),
    ('{"at": "Rome", "da', {"at": "Rome"}),
    ('{ "at" : [1, {"b": true}] , "days": 2', {"at": [1, {"b": True}]}),
    ('{"days": 2, ', {"days": 2}),
    ('{"a": true', {"a": True}),
    ('{"a": null, "b": {"c": 1', {"a": None}),
    ('{"a": "\\u00', {}),
    ('{"at": "Rome"}', {"at": "Rome"}),
]


@in_one_test(("arguments", "complete"), CUT)
def test_a_call_that_is_cut_has_its_complete_arguments(arguments: str, complete: dict[str, Any]) -> None:
    answer = whole({"tool_calls": [call(arguments)]}, "length")
    assert [block["input"] for block in answer["content"]] == [complete]
    assert answer["stop_reason"] == "max_tokens"


@in_one_test(("arguments", "complete"), [one for one in CUT if one[0]])
def test_a_client_that_reads_a_stream_gets_the_same_arguments_of_a_cut_call(
    arguments: str, complete: dict[str, Any]
) -> None:
    stream = sent({"tool_calls": [call(arguments)]}, finish="length")
    pieces = "".join(event["delta"]["partial_json"] for name, event in stream if name == "content_block_delta")
    assert complete_arguments(pieces) == complete
    assert stream[-2][1]["delta"]["stop_reason"] == "max_tokens"


@given(st.dictionaries(st.text(), st.recursive(st.text() | st.booleans() | st.none() | st.integers(), st.lists)))
def test_a_cut_at_any_place_gives_the_first_arguments_unchanged(arguments: dict[str, Any]) -> None:
    text, members = json.dumps(arguments), list(arguments.items())
    for end in range(len(text)):
        found = complete_arguments(text[:end])
        assert list(found.items()) == members[: len(found)]


@in_one_test("arguments", ["go on", "[1]", "{'at': 1}", '{"at": '])
def test_arguments_that_are_no_object_have_a_name_of_their_own(arguments: str) -> None:
    (use,) = whole({"tool_calls": [call(arguments)]}, "tool_calls")["content"]
    assert use["input"] == {"unreadable_arguments": [1] if arguments == "[1]" else arguments}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "failed", "type": "server_error", "code": None}, "api_error"),
        ({"message": "failed", "type": "invalid_request_error", "code": "x"}, "invalid_request_error"),
        ("failed", "api_error"),
    ],
)
def test_an_engines_error_ends_the_stream_in_anthropics_form(error: Any, kind: str) -> None:
    begun = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
    stream = events([json.dumps(begun).encode(), json.dumps({"error": error}).encode(), b"[DONE]"])
    assert [name for name, _ in stream][-1] == "error"
    assert (stream[-1][1]["error"]["type"], stream[-1][1]["error"]["message"]) == (kind, "failed")


def test_a_piece_of_a_call_that_is_complete_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="call 0"):
        sent({"tool_calls": [call("{")]}, {"tool_calls": [call("{}", 1)]}, {"tool_calls": [call("}")]})


def test_tokens_of_a_short_stream_are_read_from_its_last_events() -> None:
    builder = MessageBuilder("m", [])
    chunk = b'data: {"choices": [], "usage": ' + json.dumps(USAGE).encode() + b"}\n\ndata: [DONE]\n\n"
    tokens = read_tokens(chunk, builder.events(chunk))
    assert tokens is not None and (tokens.prompt, tokens.cached, tokens.output) == (7, 3, 2)


@pytest.mark.parametrize("answer", [{"tokens": [1, 2], "count": 2}, {"tokens": [1, 2]}])
def test_a_count_is_the_number_of_tokens(answer: dict[str, Any]) -> None:
    assert json.loads(token_count(json.dumps(answer).encode())) == {"input_tokens": 2}
