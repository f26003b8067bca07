"""A plain chat takes a shorter way through the gateway, with the same result as the long way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.gateway.harness import CHAT
from tests.support.cases import in_one_test
from xinference.engines.dialects import DIALECTS
from xinference.gateway import canonical_requests
from xinference.gateway.canonical_requests import make_canonical
from xinference.gateway.engine_answers import answer_rewrite
from xinference.gateway.engine_requests import _fields_to_rewrite
from xinference.gateway.request_document import RequestDocument
from xinference.protocol import exact_requests
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import Chat

FUNCTION = {"name": "one"}
CALLS = [{"id": "c", "type": "function", "function": {"name": "one", "arguments": "{}"}}]
USER = {"role": "user", "content": "hi"}

#: Every field of a chat, each with values that an exact form accepts.
VALUES: dict[str, list[Any]] = {
    "model": ["m"],
    "stream": [False, True],
    "request_id": ["id"],
    "user": ["u"],
    "safety_identifier": ["u"],
    "metadata": [{"a": "b"}],
    "service_tier": ["auto"],
    "priority": [1],
    "temperature": [0.5],
    "top_p": [0.5],
    "max_tokens": [5],
    "n": [1, 2],
    "presence_penalty": [1.0],
    "frequency_penalty": [1.0],
    "logit_bias": [{"1": 1.0}],
    "stop": ["", "a", [], [""], ["", "a"], ["a"]],
    "seed": [1],
    "response_format": [{}, {"type": "text"}, {"type": "json_schema"}, {"type": "other"}],
    "stream_options": [{"include_usage": True}],
    "top_k": [40],
    "min_p": [0.05],
    "repetition_penalty": [1.1],
    "stop_token_ids": [[], [1]],
    "ignore_eos": [True],
    "lora_name": ["adapter"],
    "guided_json": ['{"type": "object"}', {"title": "t"}],
    "guided_regex": ["a"],
    "guided_choice": [["a", "b"]],
    "guided_grammar": ["root ::= [a]"],
    "guided_json_object": [False, True],
    "messages": [
        [USER, {"role": "assistant", "content": "a"}],
        [USER, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        [{"role": "user"}],
        [USER, {"role": "assistant"}, USER],
        [USER, {"role": "assistant", "content": "a", "tool_calls": []}, USER],
        [USER, {"role": "assistant", "content": "a", "tool_calls": CALLS}, USER],
        [USER, {"role": "assistant", "content": "a", "tool_calls": [{"id": "c"}]}, USER],
        [USER, {"role": "tool", "content": "a", "tool_call_id": "c"}],
        [USER, {"role": "function", "content": "a", "name": "one"}],
        [USER, {"role": "assistant", "content": "a", "function_call": {"name": 1}}, USER],
        [USER, {"role": "assistant", "content": "a", "reasoning_content": "r", "refusal": "no"}, USER],
        [USER, {"role": "assistant", "content": "a", "audio": {"id": 1}, "annotations": []}, USER],
    ],
    "max_completion_tokens": [5],
    "logprobs": [False, True],
    "top_logprobs": [0, 2],
    "tools": [[], [{"type": "function", "function": FUNCTION}], [{"name": "one"}]],
    "tool_choice": ["none", "auto", "required", "one", {"type": "function", "function": FUNCTION}, {"name": "one"}],
    "parallel_tool_calls": [True],
    "reasoning_effort": ["low"],
    "enable_thinking": [False, True],
    "chat_template_kwargs": ["{}", {"enable_thinking": True}],
    "audio": [{}, {"voice": 1}],
    "function_call": ["auto", {"name": 1}],
    "functions": [[], [FUNCTION]],
    "modalities": [[], ["text"], ["audio"]],
    "prediction": ["p"],
    "prompt_cache_key": ["k"],
    "prompt_cache_retention": ["24h"],
    "store": [True],
    "verbosity": ["low"],
    "web_search_options": [{}, {"search_context_size": 1}],
}


def bodies() -> Iterator[bytes]:
    yield json.dumps(CHAT).encode()
    for name, values in VALUES.items():
        for value in values:
            yield json.dumps(CHAT | {name: value}).encode()
            yield json.dumps(CHAT | {name: value, "logprobs": True, "stream": True}).encode()


EVERY = in_one_test("body", [*bodies()])
EXACT, LONG = msgspec.json.Decoder(exact_requests.Chat), msgspec.json.Decoder(Chat)


def canonical(body: bytes) -> tuple[Any, bool, str]:
    """The fields of a body in the common form, whether they are others, and the code and field of a refusal."""
    document = RequestDocument(body)
    try:
        make_canonical(EXACT.decode(body), document)
    except Refusal as refusal:
        return None, False, f"{refusal.code} {refusal.param}"
    return document.fields, document.is_changed, ""


def test_every_field_of_a_chat_has_values_here() -> None:
    assert VALUES.keys() == set(exact_requests.Chat.__struct_fields__)


@EVERY
def test_a_chat_that_may_not_differ_is_in_the_common_form(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    short = canonical(body)
    with monkeypatch.context() as changed:
        changed.setattr(canonical_requests, "_may_differ", lambda *_: True)
        assert short == canonical(body)


@EVERY
def test_an_exact_chat_has_the_rewrites_of_any_other(body: bytes) -> None:
    exact, other = EXACT.decode(body), LONG.decode(body)
    assert _fields_to_rewrite(exact).keys() == _fields_to_rewrite(other).keys()
    for dialect in DIALECTS.values():
        exchanges = [dialect.exchange(chat, "m") for chat in (exact, other)]
        short, long = (
            [exchange.body is None, exchange.events is None, answer_rewrite(chat, "m", exchange) is None]
            for chat, exchange in zip((exact, other), exchanges, strict=True)
        )
        assert short == long


def test_most_fields_leave_a_chat_plain() -> None:
    plain = CHAT | {"temperature": 0.7, "max_tokens": 256, "seed": 1, "top_p": 0.9, "user": "u", "stream": True}
    body = json.dumps(plain).encode()
    document = RequestDocument(body)
    make_canonical(EXACT.decode(body), document)
    assert document.encoded() is body and document._fields is None, "its body was decoded"
