from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.harness import CHAT
from xinference.engines.dialect import UNCHANGED, BytesRewrite
from xinference.engines.llama_cpp.choices import exchange
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.protocol.requests import Generation

TEXT = {"model": "m", "prompt": ["a", "b"], "max_tokens": 2}


def request_of(**fields: Any) -> Generation:
    body = fields if "prompt" in fields else CHAT | fields
    path = "/v1/completions" if "prompt" in fields else "/v1/chat/completions"
    request = check(DATA_PATHS[path].decoder, json.dumps(body).encode())
    assert isinstance(request, Generation)
    return request


def whole(**fields: Any) -> BytesRewrite:
    """The rewrite of the answer to such a request."""
    answer = exchange(request_of(**fields)).answer
    assert answer is not None
    return answer


def events(*found: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in found) + b"data: [DONE]\n\n"


def said(index: int, **delta: Any) -> dict[str, Any]:
    end = delta.pop("end", None)
    choice = {"index": index, "delta": delta, "finish_reason": end}
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def counted(prompt: int, completion: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": usage}


TWO = events(
    said(1, role="assistant", content=None),
    said(1, content="b"),
    said(0, role="assistant", content=None),
    said(0, content="a"),
    said(1, content="B", end="stop"),
    counted(5, 3),
    said(0, end="length"),
    counted(5, 2),
)


def text(index: int, what: str, end: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "text": what, "finish_reason": end, "logprobs": None} | more
    return {"id": "t-1", "object": "text_completion", "model": "m", "choices": [choice]}


@pytest.mark.parametrize("fields", [{"n": 2}, TEXT, {"model": "m", "prompt": "a", "logprobs": 1}])
def test_such_an_answer_is_asked_for_as_a_stream_with_usage(fields: dict[str, Any]) -> None:
    found = exchange(request_of(**fields))
    assert found.body is not None and found.events is None
    assert found.body(fields) == fields | {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("fields", [{}, {"n": 1, "stream": True}, {"model": "m", "prompt": [1, 2]}])
def test_a_request_for_one_answer_is_left_as_it_is(fields: dict[str, Any]) -> None:
    assert exchange(request_of(**fields)) is UNCHANGED


def test_choices_are_put_together_and_all_counted() -> None:
    answer = json.loads(whole(n=2)(TWO))
    assert answer["object"] == "chat.completion" and answer["model"] == "m"
    assert [(c["message"]["content"], c["finish_reason"]) for c in answer["choices"]] == [
        ("a", "length"),
        ("bB", "stop"),
    ]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


def test_tool_calls_reasoning_and_logprobs_are_put_together() -> None:
    pieces = [
        {"index": 0, "id": "call", "type": "function", "function": {"name": "f", "arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ":1}"}},
    ]
    chunks = [said(0, reasoning_content="hm"), *(said(0, tool_calls=[piece]) for piece in pieces)]
    for chunk in chunks:
        chunk["choices"][0]["logprobs"] = {"content": [{"token": "x"}]}
    (choice,) = json.loads(whole(n=2)(events(*chunks)))["choices"]
    function = {"name": "f", "arguments": '{"a":1}'}
    assert choice["message"]["tool_calls"] == [{"id": "call", "type": "function", "function": function}]
    assert choice["message"]["reasoning_content"] == "hm" and len(choice["logprobs"]["content"]) == 3


@pytest.mark.parametrize("wanted", [True, False])
def test_a_stream_of_several_has_one_usage_if_any(wanted: bool) -> None:
    relay = exchange(request_of(n=2, stream=True, stream_options={"include_usage": wanted})).events
    assert relay is not None
    sent = b"".join(relay(event + b"\n\n") for event in TWO.split(b"\n\n") if event)
    assert sent.endswith(b"data: [DONE]\n\n")
    found = [json.loads(line[6:]) for line in sent.split(b"\n\n")[:-2]]
    assert [event["usage"]["total_tokens"] for event in found if "usage" in event] == [10] * wanted
    assert sum(len(event["choices"]) for event in found) == 6


def test_several_prompts_are_each_counted() -> None:
    chunks = [text(n, "x", "length") | {"usage": counted(3 + n, 2)["usage"]} for n in (0, 1)]
    answer = json.loads(whole(**TEXT)(events(*chunks)))
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert answer["object"] == "text_completion"


def test_events_that_come_as_one_list_are_each_read() -> None:
    answer = json.loads(whole(**TEXT)(events(None, [text(0, "x", "stop"), None], [None, text(1, "y", "stop")])))
    assert [choice["text"] for choice in answer["choices"]] == ["x", "y"]


def test_a_completions_logprobs_have_the_older_form() -> None:
    token = {"token": "ab", "logprob": -0.5, "top_logprobs": [{"token": "ab", "logprob": -0.5}]}
    chunks = [text(0, "ab", logprobs={"content": [token]}), text(0, "ab", "length", logprobs={"content": [token]})]
    (choice,) = json.loads(whole(model="m", prompt="a", logprobs=1)(events(*chunks)))["choices"]
    assert choice["logprobs"] == {
        "tokens": ["ab", "ab"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"ab": -0.5}, {"ab": -0.5}],
        "text_offset": [0, 2],
    }


def test_an_echo_comes_before_each_answer_once() -> None:
    answer = json.loads(
        whole(**TEXT, echo=True)(events(text(1, "x"), text(0, "y"), text(1, "z", "stop"), text(0, "", "stop")))
    )
    assert [choice["text"] for choice in answer["choices"]] == ["ay", "bxz"]


@pytest.mark.parametrize("fields", [{"prompt": "a", "logprobs": 1}, {"prompt": [1, 2]}])
def test_an_echo_that_llama_cpp_cant_give_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        exchange(request_of(model="m", echo=True, stream=True, **fields))
    assert (caught.value.status, caught.value.param) == (400, "echo")


def test_an_engine_that_breaks_off_is_a_502() -> None:
    with pytest.raises(Refusal, match="out of slots"):
        whole(n=2)(events({"error": {"message": "out of slots"}}))
