"""A request's body is decoded once for all steps, and encoded only if a step has changed it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.harness import CHAT, route
from xinference.engines.dialects import DIALECTS
from xinference.gateway.engine_requests import prepare
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.routing.table import RoutingTable

ENGINES = sorted(DIALECTS)
PATH = "/v1/chat/completions"
PARTS = [{"type": "text", "text": "What is in it?"}, {"type": "text", "text": "Be short."}]
ARGUMENTS = b'{"a":1}'
CALL = {"id": "c", "type": "function", "function": {"name": "one", "arguments": ARGUMENTS.decode()}}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("one", "two")]
CONVERSATION = [
    {"role": "system", "content": PARTS},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "4"},
]
#: A chat of an agent, in the form that every engine reads.
AGENT = CHAT | {"messages": CONVERSATION, "tools": TOOLS, "tool_choice": "auto", "stop": ["END"], "stream": True}


def prepared(engine: str, body: bytes, **of: Any) -> tuple[bytes, RequestDocument]:
    """The body that the engine gets, and the document that all steps have had."""
    request = check(DATA_PATHS[PATH].decoder, body)
    table = RoutingTable({"m": route(engine=engine, **of)})
    document = RequestDocument(body)
    return prepare(table, table.routes["m"], request, document).body, document


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the decoder and the encoder, each as often as a step has called it; not for the text of a call."""
    called: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(value: Any, **kwargs: Any) -> Any:
            if value != ARGUMENTS:
                called.append(name)
            return function(value, **kwargs)

        return call

    for name in ("decode", "encode"):
        monkeypatch.setattr(msgspec.json, name, counted(name, getattr(msgspec.json, name)))
    return called


@pytest.mark.parametrize("engine", ENGINES)
def test_a_body_in_the_common_form_is_passed_on_as_it_is(engine: str, steps: list[str]) -> None:
    body = json.dumps(AGENT).encode()
    prepared(engine, body)  # its tools are decoded once, and remembered
    steps.clear()
    sent, _ = prepared(engine, body)
    assert sent is body
    assert steps == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_body_that_several_steps_change_is_decoded_once_and_encoded_once(engine: str, steps: list[str]) -> None:
    # null, an unknown field, parts of another name, a field of older clients, the model's stop texts.
    parts = [{"type": "input_text", "text": "a", "annotations": []}]
    message = {"role": "user", "content": parts, "name": None}
    fields = {"stop": "", "top_logprobs": None, "never_heard_of": 1, "enable_thinking": False, "messages": [message]}
    sent, _ = prepared(engine, json.dumps(AGENT | fields).encode(), stop=("USER:",))
    assert steps == ["decode", "encode"]
    changed = json.loads(sent)
    assert changed["messages"] == [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    assert not {"top_logprobs", "never_heard_of", "enable_thinking"} & changed.keys()
    assert changed["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    assert changed.get("stop") == (None if DIALECTS[engine].has_stops_at_start else ["USER:"])


def test_a_plain_chat_is_not_decoded_also_if_the_model_has_stop_texts(steps: list[str]) -> None:
    body = json.dumps(CHAT).encode()
    sent, _ = prepared("vLLM", body)
    assert sent is body and steps == []
    sent, _ = prepared("vLLM", body, stop=("USER:",))
    assert steps == ["encode"]  # the stop texts alone
    assert json.loads(sent) == CHAT | {"stop": ["USER:"]}


TEXTS = st.sampled_from(["", "a", "{}", '{"a": 1}', "null"])
OPTIONAL = st.none() | TEXTS
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "input_text", "output_text", "refusal", "thinking"])},
    optional=dict.fromkeys(("text", "refusal", "thinking", "annotations"), OPTIONAL),
)
FUNCTION = st.fixed_dictionaries({"name": OPTIONAL}, optional={"arguments": OPTIONAL, "description": OPTIONAL})
CALLED = st.fixed_dictionaries({"type": st.sampled_from(["function", None])}, optional={"function": FUNCTION})
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "function"]), "content": OPTIONAL | st.lists(PART, max_size=2)},
    optional={"name": OPTIONAL, "reasoning_content": OPTIONAL, "tool_calls": st.none() | st.lists(CALLED, max_size=2)},
)
TOOL = st.fixed_dictionaries({"type": st.just("function"), "function": FUNCTION})
CHATS = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(MESSAGE, min_size=1, max_size=3)},
    optional={
        "tools": st.none() | st.lists(TOOL, max_size=2),
        "functions": st.none() | st.lists(FUNCTION, max_size=1),
        "tool_choice": st.sampled_from([None, "auto", "none", {"type": "function", "function": {"name": "a"}}]),
        "stop": st.sampled_from([None, "", "a", ["", "a"], []]),
        "stream_options": st.sampled_from([None, {"include_usage": None}, {"include_usage": True}]),
        "enable_thinking": st.none() | st.booleans(),
        "chat_template_kwargs": st.sampled_from([None, "{}", {}, {"enable_thinking": True}]),
        "top_k": st.sampled_from([None, 4]),
        "unknown": OPTIONAL,
    },
)


@given(CHATS, st.sampled_from(ENGINES))
def test_the_bytes_are_passed_on_exactly_if_no_step_has_changed_a_field(chat: dict[str, Any], engine: str) -> None:
    body = json.dumps(chat).encode()
    try:
        sent, document = prepared(engine, body)
    except Refusal:
        return
    assert (sent is body) == (document.fields == chat)
    assert json.loads(sent) == document.fields
