from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.harness import CHAT, route
from tests.support.cases import in_one_test
from xinference.gateway.engine_answers import fill_deltas
from xinference.gateway.engine_requests import EngineCall, prepare
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.routing.table import Route, RoutingTable, with_other_names

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("one", "two")]


def through(
    engine: str, path: str = "/v1/chat/completions", of: dict[str, Any] | None = None, **fields: Any
) -> tuple[Route, bytes, bytes]:
    """The route, the body that was sent and the one that the engine gets."""
    base: dict[str, Any] = CHAT if path == "/v1/chat/completions" else {"model": "m"}
    body = json.dumps(base | fields).encode()
    request = check(DATA_PATHS[path].decoder, body)
    uid_route = route(uid="m", engine=engine, adapters=("lora-a",), **of or {})
    table = RoutingTable(with_other_names({"m": uid_route, "other": route(uid="other")}))
    prepared = prepare(table, table.routes["m"], request, RequestDocument(body))
    return prepared.route, body, prepared.body


def said(
    engine: str, path: str = "/v1/chat/completions", of: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(through(engine, path, of, **fields)[2])
    return answer


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": TOOLS, "tool_choice": "auto", "temperature": 0.10, "n": 1, "logit_bias": {"1": -100}, "user": "x"},
    ],
)
def test_an_ordinary_bodys_very_bytes_go_on(fields: dict[str, Any]) -> None:
    _, body, translated = through("llama.cpp", **fields)
    assert translated is body


@pytest.mark.parametrize("engine", ["vLLM", "SGLang", "Transformers"])
def test_a_field_that_the_engine_knows_goes_on_as_it_came(engine: str) -> None:
    _, body, translated = through(engine, repetition_penalty=1.1, stop_token_ids=[2])
    assert translated is body


def test_llama_cpp_has_another_name_for_the_repetition_penalty() -> None:
    assert said("llama.cpp", repetition_penalty=1.25) == CHAT | {"repeat_penalty": 1.25}


@in_one_test(
    ("engine", "field", "value", "wanted"),
    [
        ("llama.cpp", "guided_json", SCHEMA, {"json_schema": SCHEMA}),
        ("llama.cpp", "guided_json", json.dumps(SCHEMA), {"json_schema": SCHEMA}),
        ("llama.cpp", "guided_choice", ["yes", 'no "way"'], {"grammar": 'root ::= "yes" | "no \\"way\\""'}),
        ("llama.cpp", "guided_grammar", 'root ::= "a"', {"grammar": 'root ::= "a"'}),
        ("llama.cpp", "guided_json_object", True, {"response_format": {"type": "json_object"}}),
        ("vLLM", "guided_json", SCHEMA, {"structured_outputs": {"json": SCHEMA}}),
        ("vLLM", "guided_regex", "a+", {"structured_outputs": {"regex": "a+"}}),
        ("vLLM", "guided_choice", ["a", "b"], {"structured_outputs": {"choice": ["a", "b"]}}),
        ("SGLang", "guided_json", SCHEMA, {"json_schema": SCHEMA}),
        ("SGLang", "guided_choice", ["a.b", "c"], {"regex": r"(a\.b|c)"}),
        ("Transformers", "guided_json", SCHEMA, {"guided_json": SCHEMA}),
    ],
)
def test_what_binds_an_answer_is_said_in_the_engines_words(
    engine: str, field: str, value: Any, wanted: dict[str, Any]
) -> None:
    assert said(engine, **{field: value}) == CHAT | wanted


@pytest.mark.parametrize(
    ("engine", "field", "value"),
    [
        ("llama.cpp", "stop_token_ids", [2]),
        ("llama.cpp", "guided_regex", "a+"),
        ("Transformers", "guided_choice", ["a"]),
        ("llama.cpp", "guided_json", "{not json"),
        ("vLLM", "chat_template_kwargs", "[1]"),
    ],
)
def test_what_an_engine_cant_be_told_is_a_400_that_names_the_field(engine: str, field: str, value: Any) -> None:
    with pytest.raises(Refusal) as caught:
        through(engine, **{field: value})
    assert (caught.value.status, caught.value.param) == (400, field)


def test_no_stop_token_ids_are_no_reason_to_refuse() -> None:
    assert said("llama.cpp", stop_token_ids=[]) == CHAT


def test_thinking_is_switched_by_the_templates_own_arguments() -> None:
    assert said("vLLM", enable_thinking=False)["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    both = said("vLLM", enable_thinking=True, chat_template_kwargs='{"enable_thinking": false, "a": 1}')
    assert both["chat_template_kwargs"] == {"enable_thinking": False, "thinking": True, "a": 1}


def test_template_arguments_may_come_as_text() -> None:
    assert said("llama.cpp", chat_template_kwargs='{"a": 1}')["chat_template_kwargs"] == {"a": 1}


def test_llama_cpp_is_given_a_named_tool_alone() -> None:
    choice = {"type": "function", "function": {"name": "two"}}
    body = said("llama.cpp", tools=TOOLS, tool_choice=choice)
    assert (body["tools"], body["tool_choice"]) == (TOOLS[1:], "required")
    with pytest.raises(Refusal, match="three"):
        said("llama.cpp", tools=TOOLS, tool_choice={"type": "function", "function": {"name": "three"}})


def test_lora_name_chooses_the_adapters_route_and_name() -> None:
    found, _, translated = through("vLLM", lora_name="lora-a")
    assert found.uid == "lora-a" and json.loads(translated) == CHAT | {"model": "lora-a"}


@pytest.mark.parametrize("name", ["lora-b", "other"])
def test_a_lora_name_that_is_not_an_adapter_of_the_model_names_those_there_are(name: str) -> None:
    with pytest.raises(Refusal, match="lora-a") as caught:
        through("vLLM", lora_name=name)
    assert (caught.value.status, caught.value.param) == (400, "lora_name")


def test_documents_in_objects_become_texts() -> None:
    body = said("llama.cpp", "/v1/rerank", query={"text": "q"}, documents=[{"text": "a"}, "b"])
    assert (body["query"], body["documents"]) == ("q", ["a", "b"])
    with pytest.raises(Refusal, match=r"documents\[1\]"):
        said("llama.cpp", "/v1/rerank", query="q", documents=["a", {"image": "data:"}])


def test_inputs_in_objects_become_texts() -> None:
    assert said("llama.cpp", "/v1/embeddings", input=[{"text": "a"}, "b"])["input"] == ["a", "b"]


def test_llama_cpp_can_t_cut_an_input_and_says_so() -> None:
    with pytest.raises(Refusal, match="truncate_prompt_tokens") as caught:
        said("llama.cpp", "/v1/embeddings", input="a", truncate_prompt_tokens=4)
    assert (caught.value.status, caught.value.param) == (400, "truncate_prompt_tokens")


def test_v_llm_cuts_an_input_itself() -> None:
    assert said("vLLM", "/v1/embeddings", input="a", truncate_prompt_tokens=-1)["truncate_prompt_tokens"] == -1


ENDS: dict[str, Any] = {"stop": ("USER:",), "stop_token_ids": (7, 9)}


@pytest.mark.parametrize("engine", ["vLLM", "SGLang", "Transformers"])
def test_a_chat_ends_where_its_model_says(engine: str) -> None:
    assert said(engine, of=ENDS) == CHAT | {"stop": ["USER:"], "stop_token_ids": [7, 9]}
    assert said(engine, of={"stop_token_ids": (7,)}) == CHAT | {"stop_token_ids": [7]}


def test_a_requests_own_ends_take_the_place_of_the_models() -> None:
    assert said("vLLM", of=ENDS, stop=["x"]) == CHAT | {"stop": ["x"], "stop_token_ids": [7, 9]}
    assert said("vLLM", of=ENDS, stop_token_ids=[1]) == CHAT | {"stop": ["USER:"], "stop_token_ids": [1]}
    assert said("vLLM", of=ENDS, stop=[], stop_token_ids=[]) == CHAT | {"stop": [], "stop_token_ids": []}
    assert said("vLLM", of=ENDS, stop=None, stop_token_ids=None) == CHAT | {"stop": ["USER:"], "stop_token_ids": [7, 9]}
    assert said("vLLM", of=ENDS, ignore_eos=True) == CHAT | {"stop": ["USER:"], "ignore_eos": True}


def test_an_anthropic_message_ends_there_too() -> None:
    messages = {"messages": CHAT["messages"], "max_tokens": 5}
    body = {"model": "m", **messages}
    assert said("vLLM", "/v1/messages", ENDS, **messages) == body | {"stop_sequences": ["USER:"]}
    given = messages | {"stop_sequences": ["x"]}
    assert said("vLLM", "/v1/messages", ENDS, **given) == {"model": "m", **given}


def test_a_plain_completion_and_an_engine_that_was_told_at_its_start_get_none() -> None:
    for _, body, translated in (
        through("vLLM", "/v1/completions", ENDS, prompt="hi"),
        through("llama.cpp", of=ENDS),
    ):
        assert translated is body


def test_ends_are_added_to_a_body_that_is_written_anew_for_another_field() -> None:
    wanted = CHAT | {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}, "stop": ["USER:"]}
    assert said("vLLM", of={"stop": ("USER:",)}, enable_thinking=True) == wanted


def prepared(engine: str, **fields: Any) -> EngineCall:
    body = json.dumps(CHAT | fields).encode()
    request = check(DATA_PATHS["/v1/chat/completions"].decoder, body)
    return prepare(RoutingTable(), route(engine=engine), request, RequestDocument(body))


def test_several_choices_are_streamed_from_the_engine_that_needs_it_and_asked_of_others_as_they_came() -> None:
    call = prepared("llama.cpp", n=2)
    assert json.loads(call.body) == CHAT | {"n": 2, "stream": True, "stream_options": {"include_usage": True}}
    assert call.answer is not None and call.events is None
    call = prepared("vLLM", n=2)
    assert (json.loads(call.body), call.answer, call.events) == (CHAT | {"n": 2}, None, None)


@pytest.mark.parametrize("engine", ["llama.cpp", "vLLM", "an engine without a dialect"])
def test_only_a_streamed_chats_events_are_rewritten(engine: str) -> None:
    call = prepared(engine, stream=True)
    assert (call.answer, call.events) == (None, fill_deltas)
    call = prepared(engine)
    assert (call.answer, call.events) == (None, None)
