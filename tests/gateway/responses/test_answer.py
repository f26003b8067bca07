from __future__ import annotations

import json
from typing import Any

from xinference.gateway.responses.answer import ResponseBuilder
from xinference.gateway.responses.request import translate

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "read", "parameters": {}},
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "files", "tools": [{"type": "function", "name": "open"}]},
]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}


def builder(kept: list[Any] | None = None, **fields: Any) -> ResponseBuilder:
    keep = (lambda response: None) if kept is None else kept.append
    return ResponseBuilder(translate({"model": "m", "input": "hi", **fields}, []), "m", keep)


def whole(message: dict[str, Any], finish: str = "stop", **fields: Any) -> dict[str, Any]:
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": USAGE}
    response: dict[str, Any] = json.loads(builder(**fields).whole(json.dumps(answer).encode()))
    return response


def events(*deltas: dict[str, Any], finish: str = "stop", kept: list[Any] | None = None, **fields: Any) -> list[Any]:
    """The events of a stream whose bytes come one event at a time."""
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, {"choices": [], "usage": USAGE}]
    made = builder(kept, **fields)
    lines = [json.dumps(chunk).encode() for chunk in chunks] + [b"[DONE]"]
    sent = b"".join(made.events(b"data: " + line + b"\n\n") for line in lines)
    return [json.loads(line[6:]) for line in sent.split(b"\n") if line.startswith(b"data: ")]


def call(name: str, arguments: str, index: int = 0) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": f"c{index}", "type": "function", "function": function}


def test_a_text_is_a_message() -> None:
    response = whole({"role": "assistant", "content": "hello", "reasoning_content": "think"}, metadata={"a": "b"})
    thought, message = response["output"]
    assert (thought["type"], thought["content"][0]["text"]) == ("reasoning", "think")
    assert (message["role"], message["content"][0]["text"], message["status"]) == ("assistant", "hello", "completed")
    assert (response["status"], response["incomplete_details"], response["metadata"]) == ("completed", None, {"a": "b"})
    assert response["usage"]["input_tokens_details"] == {"cached_tokens": 1}
    assert response["usage"]["total_tokens"] == 5


def test_an_answer_that_is_cut_is_incomplete() -> None:
    response = whole({"content": "hel"}, "length", max_output_tokens=2)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"
    last = events({"content": "hel"}, finish="length")[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")


def test_calls_are_those_of_the_requests_tools() -> None:
    calls = [call("read", "{}"), call("patch", '{"input": "a"}', 1), call("files__open", "{}", 2)]
    read, patch, opened = whole({"content": None, "tool_calls": calls}, "tool_calls", tools=TOOLS)["output"]
    assert (read["type"], read["call_id"], read["name"], read["arguments"]) == ("function_call", "c0", "read", "{}")
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "patch", "a")
    assert (opened["namespace"], opened["name"]) == ("files", "open")


def test_a_stream_has_the_events_of_its_items() -> None:
    kept: list[Any] = []
    sent = events(
        {"role": "assistant", "content": ""},
        {"reasoning_content": "t"},
        {"content": "he"},
        {"content": "llo"},
        kept=kept,
    )
    assert [event["type"].removeprefix("response.") for event in sent] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done",
        "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    response = sent[-1]["response"]
    assert response["output"][1]["content"][0]["text"] == "hello" and response["usage"]["output_tokens"] == 2
    assert kept == [response]
    assert {event["output_index"] for event in sent if "content_index" in event} == {0, 1}


def test_the_pieces_of_a_call_are_one_call() -> None:
    pieces = [call("files__open", '{"a"'), {"index": 0, "function": {"arguments": ": 1}"}}]
    sent = events(*({"tool_calls": [piece]} for piece in pieces), finish="tool_calls", tools=TOOLS)
    done = next(event for event in sent if event["type"] == "response.function_call_arguments.done")
    assert done["arguments"] == '{"a": 1}'
    (item,) = sent[-1]["response"]["output"]
    assert (item["namespace"], item["name"], item["arguments"]) == ("files", "open", '{"a": 1}')
    assert item["id"] == done["item_id"]


def test_the_input_of_a_custom_tool_is_a_text() -> None:
    for arguments, wanted in (('{"input": "a\\nb"}', "a\nb"), ("not JSON", "not JSON")):
        sent = events({"tool_calls": [call("patch", arguments)]}, finish="tool_calls", tools=TOOLS)
        done = next(event for event in sent if event["type"] == "response.custom_tool_call_input.done")
        assert done["input"] == wanted == sent[-1]["response"]["output"][0]["input"]


def test_an_error_in_a_stream_ends_it_as_failed() -> None:
    made = builder()
    sent = made.events(b'data: {"error":{"message":"broken"}}\n\ndata: [DONE]\n\n')
    last = json.loads(sent.strip().split(b"\n")[-1][6:])
    assert (last["type"], last["response"]["error"]["message"]) == ("response.failed", "broken")
