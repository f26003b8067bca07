"""Every form that the APIs allow reaches an engine in the one form that all engines read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.harness import CHAT, route
from tests.support.cases import in_one_test
from xinference.engines.dialects import DIALECTS
from xinference.gateway.engine_requests import EngineCall, prepare
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.routing.table import RoutingTable

ENGINES = sorted(DIALECTS)
USER = {"role": "user", "content": "hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "one", "arguments": "{}"}}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("one", "two")
]
MESSAGES = "/v1/messages"


def prepared(engine: str, path: str = "/v1/chat/completions", **fields: Any) -> EngineCall:
    base: dict[str, Any] = CHAT if path == "/v1/chat/completions" else {"model": "m"}
    if path == MESSAGES:
        base = {**CHAT, "max_tokens": 5}
    body = json.dumps(base | fields).encode()
    request = check(DATA_PATHS[path].decoder, body)
    table = RoutingTable({"m": route(engine=engine)})
    return prepare(table, table.routes["m"], request, RequestDocument(body))


def sent(engine: str, path: str = "/v1/chat/completions", **fields: Any) -> dict[str, Any]:
    """The body that the engine gets."""
    body: dict[str, Any] = json.loads(prepared(engine, path, **fields).body)
    return body


def refused(path: str = "/v1/chat/completions", **fields: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        prepared("vLLM", path, **fields)
    assert caught.value.status == 400
    return caught.value


def conversation(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [USER, message, USER]


# -- null -------------------------------------------------------------------------------------------------------


@in_one_test("engine", ENGINES)
@in_one_test(
    ("given", "wanted"),
    [
        ({"max_tokens": None, "stop": None, "tools": None, "response_format": None, "guided_json": None}, {}),
        ({"stream_options": {"include_usage": None}}, {"stream_options": {}}),
        ({"messages": [USER | {"name": None, "tool_call_id": None, "reasoning_content": None}]}, {"messages": [USER]}),
        (
            {"messages": conversation({"role": "assistant", "content": "a", "tool_calls": None, "refusal": None})},
            {"messages": conversation({"role": "assistant", "content": "a"})},
        ),
        (
            {"messages": conversation({"role": "assistant", "content": None, "function_call": None})},
            {"messages": conversation({"role": "assistant", "content": ""})},
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": None}]}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "description": None, "parameters": None}}]},
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
        ),
    ],
)
def test_null_in_an_optional_field_is_an_absent_field(
    engine: str, given: dict[str, Any], wanted: dict[str, Any]
) -> None:
    assert sent(engine, **given) == CHAT | wanted


def test_null_in_a_schema_is_a_part_of_the_schema() -> None:
    parameters = {"type": "object", "properties": {"a": {"enum": [None, 1], "default": None}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    assert sent("vLLM", tools=tools)["tools"] == tools


def test_null_is_absent_on_every_route() -> None:
    assert sent("vLLM", "/v1/embeddings", input="a", encoding_format=None, user=None) == {"model": "m", "input": "a"}
    assert sent("vLLM", "/v1/completions", prompt="a", suffix=None, best_of=None) == {"model": "m", "prompt": "a"}
    tool = {"name": "f", "description": None, "input_schema": {"type": "object"}}
    body = sent("vLLM", MESSAGES, tools=[tool], system=None, tool_choice=None)
    assert body == CHAT | {"max_tokens": 5, "tools": [{"name": "f", "input_schema": {"type": "object"}}]}


def test_the_content_of_a_call_may_be_null_and_that_of_a_question_may_not() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert sent("vLLM", messages=conversation(message))["messages"][1] == message
    assert refused(messages=[{"role": "user", "content": None}]).param == "messages[0].content"
    assert refused(messages=[USER, {"role": "system"}]).param == "messages[1].content"


# -- earlier calls ----------------------------------------------------------------------------------------------


@in_one_test("engine", ENGINES)
@in_one_test(
    ("arguments", "wanted"),
    [
        ("", {}),
        (" \n", {}),
        (None, {}),
        ("null", {}),
        ('{"a": 1', {"unreadable_arguments": '{"a": 1'}),
        ("go on", {"unreadable_arguments": "go on"}),
        ("[1]", {"unreadable_arguments": [1]}),
        ("NaN", {"unreadable_arguments": "NaN"}),
        ('{"a": 1}', {"a": 1}),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_the_arguments_of_an_earlier_call_are_an_object(engine: str, arguments: Any, wanted: dict[str, Any]) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "one", "arguments": arguments}}
    body = sent(engine, messages=conversation({"role": "assistant", "content": None, "tool_calls": [call]}))
    assert json.loads(body["messages"][1]["tool_calls"][0]["function"]["arguments"]) == wanted


def test_the_input_of_an_earlier_tool_use_is_an_object() -> None:
    part = {"type": "tool_use", "id": "c", "name": "f", "input": '{"a'}
    body = sent("llama.cpp", MESSAGES, messages=conversation({"role": "assistant", "content": [part]}))
    assert body["messages"][1]["content"][0]["input"] == {"unreadable_arguments": '{"a'}


@in_one_test(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "f"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [TOOLS[0], {"type": "custom", "custom": {"name": "f"}}]}, "tools[1].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": "one", "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "three"}}, "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": {"type": "function"}, "tools": TOOLS}, "tool_choice.function.name"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "one"}}, "tools": TOOLS}, "tool_choice.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"json_schema": {}, "type": None}}, "response_format.type"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_400_that_names_the_field(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


@pytest.mark.parametrize(
    ("call", "step"),
    [
        ({"id": "c", "function": {"name": "one"}}, "type"),
        ({"id": "c", "type": "function"}, "function"),
        ({"id": "c", "type": "function", "function": {"name": None}}, "function.name"),
        ({"id": "c", "type": "custom", "custom": {"name": "one", "input": "a"}}, "type"),
    ],
)
def test_a_mistake_in_an_earlier_call_is_named(call: dict[str, Any], step: str) -> None:
    messages = conversation({"role": "assistant", "content": None, "tool_calls": [call]})
    assert refused(messages=messages).param == f"messages[1].tool_calls[0].{step}"


@in_one_test(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ],
)
def test_a_mistake_in_an_anthropic_message_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(MESSAGES, **fields).param == param


def test_parts_that_other_apis_write_are_read_as_their_text() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b", "annotations": []}]
    assert sent("llama.cpp", messages=[{"role": "user", "content": parts}])["messages"][0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    parts = [{"type": "thinking", "thinking": "t"}, {"type": "refusal", "refusal": "no"}]
    message = sent("llama.cpp", messages=conversation({"role": "assistant", "content": parts}))["messages"][1]
    assert message == {"role": "assistant", "content": [{"type": "text", "text": "no"}], "reasoning_content": "t"}


# -- stop texts, numbers ----------------------------------------------------------------------------------------


@in_one_test("engine", ENGINES)
@in_one_test(("stop", "wanted"), [("", None), ([""], None), (["", "a", ""], ["a"]), ("a", "a"), ([], [])])
def test_an_empty_stop_text_asks_for_nothing(engine: str, stop: Any, wanted: Any) -> None:
    assert sent(engine, stop=stop).get("stop") == wanted
    assert sent(engine, "/v1/completions", prompt="a", stop=stop).get("stop") == wanted
    if isinstance(stop, list):
        assert sent(engine, MESSAGES, stop_sequences=stop).get("stop_sequences") == wanted


def test_an_empty_stop_text_does_not_replace_those_of_the_model() -> None:
    body = json.dumps(CHAT | {"stop": ""}).encode()
    request = check(DATA_PATHS["/v1/chat/completions"].decoder, body)
    table = RoutingTable({"m": route(engine="vLLM", stop=("USER:",))})
    assert json.loads(prepare(table, table.routes["m"], request, RequestDocument(body)).body)["stop"] == ["USER:"]


@in_one_test("number", [2**31, 2**32 + 8, 2**63, 10**30])
@in_one_test(
    ("path", "field"),
    [
        ("/v1/chat/completions", "max_tokens"),
        ("/v1/chat/completions", "max_completion_tokens"),
        ("/v1/completions", "best_of"),
        (MESSAGES, "max_tokens"),
        (MESSAGES, "top_k"),
        ("/v1/embeddings", "dimensions"),
    ],
)
def test_a_number_that_an_engine_cannot_hold_is_refused(path: str, field: str, number: int) -> None:
    more = {"prompt": "a"} if path == "/v1/completions" else {"input": "a"} if path == "/v1/embeddings" else {}
    assert refused(path, **more, **{field: number}).param == field


def test_token_ids_seeds_and_thinking_have_bounds() -> None:
    assert refused("/v1/completions", prompt=[1, 2**32]).param == "prompt[1]"
    assert refused(seed=2**63).param == "seed"
    assert refused(MESSAGES, thinking={"type": "enabled", "budget_tokens": 2**40}).param == "thinking.budget_tokens"


# -- what engines do not do -------------------------------------------------------------------------------------


def test_the_best_of_more_answers_is_refused_and_of_as_many_is_nothing() -> None:
    assert refused("/v1/completions", prompt="a", best_of=3).param == "best_of"
    assert "best_of" not in sent("vLLM", "/v1/completions", prompt="a", best_of=3, n=3)


def test_llama_cpp_refuses_a_suffix_by_name() -> None:
    with pytest.raises(Refusal, match="suffix") as caught:
        prepared("llama.cpp", "/v1/completions", prompt="a", suffix="b")
    assert caught.value.param == "suffix"
    assert "suffix" not in sent("llama.cpp", "/v1/completions", prompt="a", suffix="")


@pytest.mark.parametrize("engine", ENGINES)
def test_only_the_allowed_tools_are_passed(engine: str) -> None:
    named = [{"type": "function", "function": {"name": "two"}}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": named}}
    body = sent(engine, tools=TOOLS, tool_choice=choice)
    assert (body["tools"], body["tool_choice"]) == (TOOLS[1:], "required")
    unknown = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "three"}}]}
    assert refused(tools=TOOLS, tool_choice={"type": "allowed_tools", "allowed_tools": unknown}).param == "tool_choice"


@pytest.mark.parametrize("engine", ENGINES)
def test_images_of_other_apis_have_the_form_of_a_chat(engine: str) -> None:
    link = "data:image/png;base64,AAAA"
    wanted = {"type": "image_url", "image_url": {"url": link}}
    for part in (
        wanted,
        {"type": "image_url", "image_url": {"url": link, "detail": None}},
        {"type": "image_url", "image_url": link},
        {"type": "input_image", "image_url": link, "detail": None},
        {"type": "image", "image": link},
    ):
        assert sent(engine, messages=[{"role": "user", "content": [part]}])["messages"][0]["content"] == [wanted]
    detailed = {"type": "input_image", "image_url": link, "detail": "low"}
    content = sent(engine, messages=[{"role": "user", "content": [detailed]}])["messages"][0]["content"]
    assert content == [{"type": "image_url", "image_url": {"url": link, "detail": "low"}}]


@pytest.mark.parametrize("part", [{"type": "image_url"}, {"type": "input_image", "image_url": None}, {"type": "image"}])
def test_an_image_that_is_absent_is_named(part: dict[str, Any]) -> None:
    refusal = refused(messages=[{"role": "user", "content": [part]}])
    assert refusal.param == f"messages[0].content[0].{'image' if part['type'] == 'image' else 'image_url'}"


@pytest.mark.parametrize(
    "part",
    [{"type": "tool_result", "tool_use_id": "c", "content": "4"}, {"type": "tool_use", "id": "c", "name": "one"}],
)
def test_parts_that_only_anthropics_messages_have_are_refused_in_a_chat(part: dict[str, Any]) -> None:
    refusal = refused(messages=[{"role": "user", "content": [part]}])
    assert (refusal.param, refusal.code) == ("messages[0].content[0].type", "unsupported_content")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_list_without_parts_is_an_empty_text(engine: str) -> None:
    assert sent(engine, messages=[{"role": "system", "content": []}, USER])["messages"][0]["content"] == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_no_tools_are_absent_tools(engine: str) -> None:
    assert sent(engine, tools=[], tool_choice="auto") == CHAT
    assert sent(engine, tool_choice="none") == CHAT


def test_a_choice_of_tools_that_anthropic_does_not_have_is_refused() -> None:
    tools = [{"name": "one", "input_schema": {"type": "object"}}]
    refusal = refused(MESSAGES, tools=tools, tool_choice={"type": "required"})
    assert refusal.param == "tool_choice.type" and "expected one of auto, any, tool, none" in refusal.cause
    for choice in ({"type": "auto"}, {"type": "none"}, {"type": "any", "disable_parallel_tool_use": True}):
        assert sent("vLLM", MESSAGES, tools=tools, tool_choice=choice)["tool_choice"] == choice


@pytest.mark.parametrize("logprobs", [None, False])
def test_alternatives_need_log_probabilities(logprobs: bool | None) -> None:
    assert refused(top_logprobs=3, logprobs=logprobs).param == "top_logprobs"
    assert "top_logprobs" not in sent("vLLM", top_logprobs=None, logprobs=logprobs)
    assert sent("vLLM", top_logprobs=3, logprobs=True)["top_logprobs"] == 3
    assert "top_logprobs" not in sent("llama.cpp", top_logprobs=0, stream=False)


def test_llama_cpp_gets_anthropics_named_tool_alone() -> None:
    tools = [{"name": name, "input_schema": {"type": "object"}} for name in ("one", "two")]
    body = sent("llama.cpp", MESSAGES, tools=tools, tool_choice={"type": "tool", "name": "two"})
    assert body["tools"] == tools[1:]


def test_assistant_messages_at_the_end_are_one_message() -> None:
    end = [{"role": "assistant", "content": text} for text in ("a", "b", "c")]
    assert sent("llama.cpp", messages=[USER, *end])["messages"] == [
        USER,
        {"role": "assistant", "content": "a\n\nb\n\nc"},
    ]
    parts = [{"type": "text", "text": "b"}]
    joined = sent("llama.cpp", messages=[USER, end[0], {"role": "assistant", "content": parts}])["messages"][1]
    assert joined["content"] == "ab", "text parts of the last message are one text, which the engine continues"
    assert len(sent("llama.cpp", messages=[end[0], end[1], USER])["messages"]) == 3


# -- the older functions ----------------------------------------------------------------------------------------


def test_functions_become_tools() -> None:
    function = {"name": "one", "parameters": {"type": "object"}}
    messages = [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "one", "arguments": ""}},
        {"role": "function", "name": "one", "content": "4"},
    ]
    body = sent("vLLM", functions=[function], function_call={"name": "one"}, messages=messages)
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "one"}}
    assert not {"functions", "function_call"} & body.keys()
    call, result = body["messages"][1:]
    assert call["tool_calls"][0]["function"] == {"name": "one", "arguments": "{}"}
    assert (result["role"], result["tool_call_id"]) == ("tool", call["tool_calls"][0]["id"])
    assert sent("llama.cpp", functions=[function], function_call={"name": "one"})["tool_choice"] == "required"
    assert refused(functions=[function], tools=TOOLS).param == "functions"


def test_a_call_is_answered_as_a_function_call() -> None:
    rewrite = prepared("vLLM", functions=[{"name": "one"}]).answer
    assert rewrite is not None
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    (answered,) = json.loads(rewrite(json.dumps({"choices": [choice]}).encode()))["choices"]
    assert answered["message"]["function_call"] == {"name": "one", "arguments": "{}"}
    assert "tool_calls" not in answered["message"] and answered["finish_reason"] == "function_call"


def test_the_events_of_a_call_are_those_of_a_function_call() -> None:
    rewrite = prepared("vLLM", functions=[{"name": "one"}], stream=True).events
    assert rewrite is not None
    delta = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "one", "arguments": "{"}}]}
    event = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    chunk = rewrite(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\ndata: [DONE]\n\n")
    first, done = chunk.strip().split(b"\n\n")
    assert json.loads(first[6:])["choices"][0]["delta"] == {"function_call": {"name": "one", "arguments": "{"}}
    assert done == b"data: [DONE]"


@in_one_test(
    ("fields", "value"),
    [
        ({"functions": [{"name": "one"}], "function_call": ""}, "''"),
        ({"functions": [{"name": "one"}], "function_call": "any"}, "'any'"),
        ({"function_call": "required"}, "'required'"),
    ],
)
def test_an_unknown_choice_of_a_function_is_refused_by_the_name_that_was_sent(
    fields: dict[str, Any], value: str
) -> None:
    refusal = refused(**fields)
    assert refusal.param == "function_call"
    assert f"invalid value {value}, expected one of none, auto" in refusal.cause


@in_one_test("choice", [{}, {"name": None}, {"name": 5}])
def test_a_choice_of_a_function_without_its_name_is_refused_as_incomplete(choice: dict[str, Any]) -> None:
    refusal = refused(functions=[{"name": "one"}], function_call=choice)
    assert refusal.cause == "function_call.name is required."


# -- fields of Anthropic's messages ---------------------------------------------------------------------------------


@in_one_test(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"stop": ["a"]}, "stop"),
        ({"n": 2}, "n"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"type": "url", "url": "https://a.b/c", "name": "s"}]}, "mcp_servers"),
        ({"thread": {"type": "continue", "previous_message_id": "m"}}, "thread"),
        ({"compaction": {"type": "summarize"}}, "compaction"),
        ({"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {}}, "tool_choice.type"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type"),
        ({"output_config": {"effort": "least"}}, "output_config.effort"),
        ({"output_config": {"format": "json"}}, "output_config.format"),
        ({"thinking": {"type": "much"}}, "thinking.type"),
        ({"system": [{"type": "image", "source": {"type": "base64", "data": "AA"}}]}, "system[0].type"),
    ],
)
def test_a_field_that_would_change_an_answer_in_silence_is_refused(fields: dict[str, Any], param: str) -> None:
    assert refused(MESSAGES, **fields).param == param


@in_one_test(
    ("source", "param"),
    [
        ({"type": "file", "file_id": "f"}, "messages[0].content[0].source.type"),
        ({"type": "base64", "media_type": "image/png"}, "messages[0].content[0].source.data"),
        ({"type": "url"}, "messages[0].content[0].source.url"),
    ],
)
def test_an_image_that_is_not_in_the_request_is_refused(source: dict[str, Any], param: str) -> None:
    messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    assert refused(MESSAGES, messages=messages).param == param


# -- documents of Anthropic's messages ------------------------------------------------------------------------------

QUESTION = {"type": "text", "text": "What is it?"}
#: A text that begins with an address, and has characters that base64 does not have.
TEXT = "https://a.b/c: the café."


def source(**members: Any) -> dict[str, Any]:
    return {"type": "document", "source": members}


@in_one_test("engine", ENGINES)
@in_one_test(
    ("block", "text"),
    [
        (source(type="text", media_type="text/plain", data=TEXT), TEXT),
        (
            source(type="text", data="a") | {"title": "T", "context": "C", "citations": {"enabled": False}},
            "T\n\nC\n\na",
        ),
        (source(type="content", content="a"), "a"),
        (source(type="content", content=[QUESTION, QUESTION]), "What is it?\nWhat is it?"),
        (
            {"type": "search_result", "source": "https://a.b/c", "title": "T", "content": [QUESTION]},
            "T\n\nhttps://a.b/c\n\nWhat is it?",
        ),
    ],
)
def test_a_document_is_a_text_for_the_engine(engine: str, block: dict[str, Any], text: str) -> None:
    for more in ({}, {"unknown": 1}):  # a body with an unknown field is searched for addresses
        messages = sent(engine, MESSAGES, messages=[{"role": "user", "content": [block, QUESTION]}], **more)["messages"]
        assert messages[0]["content"] == [{"type": "text", "text": text}, QUESTION]


def test_a_document_is_also_a_text_in_the_result_of_a_tool() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [source(type="text", data="a")]}
    content = sent("vLLM", MESSAGES, messages=[{"role": "user", "content": [result]}])["messages"][0]["content"]
    assert content[0]["content"] == [{"type": "text", "text": "a"}]


def test_the_image_of_a_document_follows_its_text() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    block = source(type="content", content=[image, QUESTION])
    content = sent("vLLM", MESSAGES, messages=[{"role": "user", "content": [block]}])["messages"][0]["content"]
    assert content == [QUESTION, image]


@in_one_test(
    ("block", "param"),
    [
        (source(type="base64", media_type="application/pdf", data="AAAA"), "source.type"),
        (source(type="file", file_id="f"), "source.type"),
        (source(), "source.type"),
        (source(type="text"), "source.data"),
        (source(type="content"), "source.content"),
        (source(type="content", content=[{"type": "thinking", "text": "a"}]), "source.content[0].type"),
        (source(type="text", data="a") | {"citations": {"enabled": True}}, "citations"),
        ({"type": "search_result", "source": "s", "title": "t"}, "content"),
    ],
)
def test_a_document_that_is_no_text_is_refused(block: dict[str, Any], param: str) -> None:
    messages = [{"role": "user", "content": [block]}]
    assert refused(MESSAGES, messages=messages).param == f"messages[0].content[0].{param}"


@in_one_test("data", ["https://a.b/c", "file:/etc/passwd", "a.b", "AA!A"])
def test_the_data_of_an_image_is_base64(data: str) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    assert (
        refused(MESSAGES, messages=[{"role": "user", "content": [image]}]).param == "messages[0].content[0].source.data"
    )


def test_no_engine_gets_the_source_of_a_text() -> None:
    text = QUESTION | {"source": {"type": "text", "data": "https://a.b/c"}}
    assert sent("vLLM", MESSAGES, messages=[{"role": "user", "content": [text]}])["messages"][0]["content"] == [
        QUESTION
    ]
