from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import in_one_test
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.protocol.requests import Request

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "hi"}
EMBED: dict[str, Any] = {"model": "m", "input": "hi"}
RERANK: dict[str, Any] = {"model": "m", "query": "q", "documents": ["a"]}


def accepted(path: str, body: Any) -> Request:
    return check(DATA_PATHS[path].decoder, body if isinstance(body, bytes) else json.dumps(body).encode())


def refused(path: str, body: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        accepted(path, body)
    assert caught.value.status == 400
    return caught.value


@in_one_test(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", CHAT | {"stream": True, "temperature": 2, "top_p": 0, "max_tokens": 1, "n": 128}),
        ("/v1/chat/completions", CHAT | {"stop": ["a"], "seed": -1, "tools": [{"x": 1}], "response_format": {}}),
        ("/v1/chat/completions", CHAT | {"temperature": None, "max_tokens": None, "stop": None, "n": None}),
        ("/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 20, "stream_options": {"x": 1}}),
        ("/v1/chat/completions", CHAT | {"never_heard_of": [{"x": [1]}]}),
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "assistant", "tool_calls": []}]}),
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        ("/v1/completions", COMPLETION | {"logprobs": 0}),
        ("/v1/completions", {"model": "m", "prompt": ["a", "b"]}),
        ("/v1/completions", {"model": "m", "prompt": [1, 2]}),
        ("/v1/completions", {"model": "m", "prompt": [[1], [2]]}),
        ("/v1/embeddings", {"model": "m", "input": ["a", "é"]}),
        ("/v1/embeddings", {"model": "m", "input": [[1, 2]]}),
        ("/v1/rerank", RERANK | {"top_n": 1}),
        ("/v1/responses", {"model": "m", "input": [{"role": "user"}]}),
        ("/v1/messages", CHAT | {"max_tokens": 1}),
        ("/v1/messages/count_tokens", CHAT),
        ("/tokenize", {"model": "m", "content": "x"}),
    ],
)
def test_what_the_apis_allow_passes(path: str, body: Any) -> None:
    assert accepted(path, body).model == "m"


@in_one_test(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {"messages": CHAT["messages"]}, "model"),
        ("/v1/chat/completions", CHAT | {"model": ""}, "model"),
        ("/v1/chat/completions", CHAT | {"model": 7}, "model"),
        ("/v1/chat/completions", {"model": "m"}, "messages"),
        ("/v1/chat/completions", CHAT | {"messages": []}, "messages"),
        ("/v1/chat/completions", CHAT | {"messages": "hi"}, "messages"),
        ("/v1/chat/completions", CHAT | {"messages": [{"content": "hi"}]}, "messages[0].role"),
        ("/v1/chat/completions", CHAT | {"messages": [{"role": "robot"}]}, "messages[0].role"),
        ("/v1/chat/completions", CHAT | {"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ("/v1/chat/completions", CHAT | {"stream": "yes"}, "stream"),
        ("/v1/chat/completions", CHAT | {"temperature": 2.1}, "temperature"),
        ("/v1/chat/completions", CHAT | {"temperature": True}, "temperature"),
        ("/v1/chat/completions", CHAT | {"top_p": -0.1}, "top_p"),
        ("/v1/chat/completions", CHAT | {"max_tokens": 0}, "max_tokens"),
        ("/v1/chat/completions", CHAT | {"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ("/v1/chat/completions", CHAT | {"n": 0}, "n"),
        ("/v1/chat/completions", CHAT | {"presence_penalty": 3}, "presence_penalty"),
        ("/v1/chat/completions", CHAT | {"frequency_penalty": -3}, "frequency_penalty"),
        ("/v1/chat/completions", CHAT | {"stop": 1}, "stop"),
        ("/v1/chat/completions", CHAT | {"seed": "a"}, "seed"),
        ("/v1/chat/completions", CHAT | {"logprobs": 1}, "logprobs"),
        ("/v1/chat/completions", CHAT | {"top_logprobs": 21}, "top_logprobs"),
        ("/v1/chat/completions", CHAT | {"tools": ["x"]}, "tools[0]"),
        ("/v1/chat/completions", CHAT | {"response_format": "json"}, "response_format"),
        ("/v1/chat/completions", CHAT | {"stream_options": 1}, "stream_options"),
        ("/v1/completions", {"model": "m"}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": []}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": [1, "a"]}, "prompt"),
        ("/v1/completions", COMPLETION | {"logprobs": True}, "logprobs"),
        ("/v1/embeddings", {"model": "m"}, "input"),
        ("/v1/embeddings", {"model": "m", "input": {}}, "input"),
        ("/v1/rerank", RERANK | {"documents": []}, "documents"),
        ("/v1/rerank", {"model": "m", "documents": ["a"]}, "query"),
        ("/v1/messages", CHAT, "max_tokens"),
        ("/v1/responses", {"model": "m"}, "input"),
    ],
)
def test_a_wrong_field_is_named(path: str, body: Any, param: str) -> None:
    refusal = refused(path, body)
    assert refusal.param == param
    assert param in refusal.cause
    assert "$" not in refusal.cause


def test_broken_json_is_pointed_at_by_line_column_and_byte() -> None:
    refusal = refused("/v1/chat/completions", b'{"model": "m",\n  "n": oops}')
    assert refusal.code == "invalid_json"
    assert refusal.cause == "The body is not valid JSON: invalid character at line 2, column 8 (byte 22)."


def test_a_body_that_breaks_off_says_so() -> None:
    assert "truncated (byte 9)" in refused("/v1/chat/completions", b'{"model":').cause


@pytest.mark.parametrize("text", [rb"\ud83d", rb"a\uDBFFab"])
def test_a_text_that_ends_with_half_of_a_character_is_named_as_that(text: bytes) -> None:
    cause = refused("/v1/chat/completions", b'{"model":"%b"}' % text).cause
    assert "half of a surrogate pair" in cause and "truncated" not in cause


@pytest.mark.parametrize("body", [b"", b"[]", b'"text"', b"null", b"7"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert refused("/v1/chat/completions", body).param is None


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_a_missing_body_is_named_as_that(body: bytes) -> None:
    assert refused("/v1/chat/completions", body).cause == "The body is empty; it must be a JSON object."


@pytest.mark.parametrize("body", [b'{"model":"\xff"}', b'{"model":"m","skipped":"\xff"}'])
def test_a_body_that_is_not_utf8_is_refused_even_in_a_field_that_is_not_looked_at(body: bytes) -> None:
    assert "UTF-8" in refused("/tokenize", body).cause


def test_a_bottomless_nesting_is_refused() -> None:
    assert "nested" in refused("/tokenize", b'{"model":"m","x":' + b"[" * 100_000).cause


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = "model messages prompt stream temperature top_p max_tokens n stop seed logprobs tools input documents query"
OBJECTS = st.dictionaries(st.sampled_from(NAMES.split(" ")), JSON, max_size=8)
BODIES = (OBJECTS | JSON).map(json.dumps).map(str.encode) | st.binary(max_size=64)


@given(path=st.sampled_from(sorted(DATA_PATHS)), body=BODIES)
def test_no_body_at_all_is_our_fault(path: str, body: bytes) -> None:
    try:
        accepted(path, body)
    except Refusal as refusal:
        assert refusal.status == 400
