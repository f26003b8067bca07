"""The fields that only an engine reads: those of its table within their bounds, and no other."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.harness import CHAT, route
from tests.support.cases import in_one_test
from xinference.engines.dialects import DIALECTS
from xinference.gateway.engine_requests import prepare
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol import requests
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.routing.table import RoutingTable

CHATS, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LLAMA_CPP, VLLM, SGLANG, TRANSFORMERS = "llama.cpp", "vLLM", "SGLang", "Transformers"


def to_engine(engine: str, path: str = CHATS, **fields: Any) -> dict[str, Any]:
    """The body that the engine gets."""
    base: dict[str, Any] = CHAT if path == CHATS else {"model": "m"}
    body = json.dumps(base | fields).encode()
    request = check(DATA_PATHS[path].decoder, body)
    sent: dict[str, Any] = json.loads(
        prepare(RoutingTable(), route(engine=engine), request, RequestDocument(body)).body
    )
    return sent


def refused(engine: str, path: str = CHATS, **fields: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        to_engine(engine, path, **fields)
    assert caught.value.status == 400
    return caught.value


@in_one_test(
    ("engine", "field", "value"),
    [
        (LLAMA_CPP, "n_probs", 49_152),
        (LLAMA_CPP, "n_probs", 21),
        (LLAMA_CPP, "n_predict", -2),
        (LLAMA_CPP, "n_keep", 2**40),
        (LLAMA_CPP, "n_discard", -1),
        (LLAMA_CPP, "samplers", ["top_k"] * 17),
        (LLAMA_CPP, "samplers", "k" * 100_000),
        (LLAMA_CPP, "dry_sequence_breakers", ["a"] * 65),
        (LLAMA_CPP, "dry_sequence_breakers", ["a" * 1025]),
        (LLAMA_CPP, "preserved_tokens", ["a"] * 10_000),
        (LLAMA_CPP, "response_fields", ["a"] * 65),
        (LLAMA_CPP, "min_keep", 100_000),
        (LLAMA_CPP, "mirostat", 3),
        (LLAMA_CPP, "repeat_last_n", 2**20 + 1),
        (LLAMA_CPP, "dry_penalty_last_n", 2**31 - 1),
        (LLAMA_CPP, "repeat_last_n", -1),
        (LLAMA_CPP, "typical_p", -0.5),
        (LLAMA_CPP, "dynatemp_range", -1),
        (LLAMA_CPP, "mirostat_tau", -1),
        (VLLM, "allowed_token_ids", [-1]),
        (VLLM, "logprob_token_ids", [2**31]),
        (VLLM, "prompt_logprobs", 1000),
        (VLLM, "bad_words", ["a"] * 65),
        (VLLM, "allowed_token_ids", [1] * 1025),
        (VLLM, "logprob_token_ids", [1] * 129),
        (SGLANG, "stop_regex", ["a"] * 65),
        (SGLANG, "min_tokens", -1),
        (TRANSFORMERS, "min_p", 2),
    ],
)
def test_a_native_field_beyond_its_bound_is_refused_by_name(engine: str, field: str, value: Any) -> None:
    refusal = refused(engine, **{field: value})
    assert refusal.code == "invalid_request" and str(refusal.param).startswith(field) and field in refusal.cause


@in_one_test("path", [CHATS, COMPLETIONS])
@in_one_test(
    ("field", "value"),
    [
        ("stop", ["a"] * 65),
        ("stop", ["a" * 1025]),
        ("stop", "a" * 1025),
        ("logit_bias", {str(n): 1 for n in range(1025)}),
    ],
)
def test_stops_and_biases_are_bounded_on_every_engine(path: str, field: str, value: Any) -> None:
    for engine in DIALECTS:
        assert refused(engine, path, prompt="a", **{field: value}).param is not None


@in_one_test(
    ("engine", "field", "value"),
    [
        (LLAMA_CPP, "reasoning_format", "zzz"),
        (LLAMA_CPP, "n_predict", "many"),
        (LLAMA_CPP, "cache_prompt", 7),
        (LLAMA_CPP, "dry_base", [1]),
        (LLAMA_CPP, "json_schema", [1]),
        (VLLM, "skip_special_tokens", "yes"),
        (SGLANG, "regex", {"a": 1}),
    ],
)
def test_a_wrong_type_in_a_native_field_is_a_400_that_names_it(engine: str, field: str, value: Any) -> None:
    assert refused(engine, **{field: value}).param == field


@in_one_test(
    ("path", "fields", "param"),
    [
        (
            "/apply-template",
            {"messages": [{"role": "assistant", "reasoning_content": ["a"]}]},
            "messages[0].reasoning_content",
        ),
        (CHATS, {"messages": [{"role": "user", "content": "a", "name": 7}]}, "messages[0].name"),
        (CHATS, {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": 7}}]}]}, None),
        (CHATS, {"tools": [{"type": "function", "function": {"name": 7}}]}, "tools[0].function.name"),
        ("/apply-template", {"messages": [{"role": "user", "content": "a"}], "tools": 7}, "tools"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/tokenize", {"content": {"a": 1}}, "content"),
        ("/infill", {"input_prefix": 7}, "input_prefix"),
        ("/infill", {"n_probs": 49_152}, "n_probs"),
    ],
)
def test_a_wrong_type_below_a_field_of_the_api_is_named_too(
    path: str, fields: dict[str, Any], param: str | None
) -> None:
    refusal = refused(LLAMA_CPP, path, **fields)
    assert refusal.param == param or param is None


@in_one_test(
    ("engine", "field", "value"),
    [
        (LLAMA_CPP, "grammar_lazy", True),
        (LLAMA_CPP, "grammar_triggers", [{"type": 0, "value": "a"}]),
        (LLAMA_CPP, "id_slot", 0),
        (LLAMA_CPP, "lora", [{"id": 0, "scale": 9}]),
        (LLAMA_CPP, "chat_parser", "x"),
        (VLLM, "prompt_embeds", "AAAA"),
        (VLLM, "kv_transfer_params", {"remote_host": "10.0.0.1"}),
        (VLLM, "logits_processors", ["os.system"]),
        (VLLM, "chat_template", "{{ 1 }}"),
        (VLLM, "mm_processor_kwargs", {"a": 1}),
        (SGLANG, "custom_logit_processor", "AAAA"),
        (SGLANG, "bootstrap_host", "10.0.0.1"),
        (SGLANG, "lora_path", "/etc"),
    ],
)
def test_a_native_field_that_no_client_may_set_is_refused_by_name(engine: str, field: str, value: Any) -> None:
    refusal = refused(engine, **{field: value})
    assert (refusal.code, refusal.param) == ("unsupported_field", field)
    nothing: dict[str, Any] = {field: None}
    assert to_engine(engine, **nothing) == CHAT, "null asks for nothing"


@pytest.mark.parametrize("engine", [*DIALECTS, "an engine without a dialect"])
def test_a_field_that_nobody_knows_is_left_out_and_those_of_openai_are_passed(engine: str) -> None:
    fields: dict[str, Any] = {
        "user": "x",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "logit_bias": {"1": -100},
    }
    assert to_engine(engine, never_heard_of=[{"x": [1]}], speculative={"n_max": 9}, **fields) == CHAT | fields


def test_the_native_fields_of_a_table_reach_the_engine_with_the_bytes_of_the_body() -> None:
    fields = {"n_probs": 20, "cache_prompt": True, "dry_multiplier": 0.8, "samplers": ["top_k", "min_p"], "top_k": 40}
    body = json.dumps(CHAT | fields).encode()
    request = check(DATA_PATHS[CHATS].decoder, body)
    assert prepare(RoutingTable(), route(engine=LLAMA_CPP), request, RequestDocument(body)).body is body
    assert to_engine(VLLM, top_k=40, min_p=0.1, skip_special_tokens=False)["top_k"] == 40
    assert to_engine(SGLANG, top_k=40, regex="a+")["regex"] == "a+"
    assert to_engine(TRANSFORMERS, top_k=40, min_p=0.1)["min_p"] == 0.1
    assert "n_probs" not in to_engine(VLLM, n_probs=5)


@pytest.mark.parametrize(
    ("engine", "fields"),
    [
        (LLAMA_CPP, {"grammar": "root ::= " + "(" * 200}),
        (LLAMA_CPP, {"json_schema": {"enum": list(range(2000))}}),
        (VLLM, {"structured_outputs": {"regex": "a{1,100000}"}}),
        (SGLANG, {"ebnf": "root ::= " + " | ".join(["a"] * 5000)}),
        (SGLANG, {"json_schema": json.dumps({"minLength": 5, "maxLength": 2})}),
    ],
)
def test_native_constraints_have_the_limits_of_the_others(engine: str, fields: dict[str, Any]) -> None:
    assert refused(engine, **fields).code in ("constraint_too_complex", "invalid_constraint")


def test_documents_to_rerank_are_not_taken_for_native_ones() -> None:
    sent = to_engine(VLLM, "/v1/rerank", query="q", documents=["a"], unknown=1)
    assert sent == {"model": "m", "query": "q", "documents": ["a"]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = sorted({name for dialect in DIALECTS.values() for name in (*dialect.native.taken, *dialect.native.refused)})


@given(engine=st.sampled_from(sorted(DIALECTS)), fields=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5))
def test_only_judged_fields_ever_reach_an_engine(engine: str, fields: dict[str, Any]) -> None:
    native = DIALECTS[engine].native
    try:
        sent = to_engine(engine, **fields)
    except Refusal as refusal:
        assert refusal.status == 400
        return
    further = {name: value for name, value in sent.items() if name not in check_form() and name not in GENERATED}
    assert further.keys() <= native.taken.keys()
    msgspec.convert(further, native.form)


def check_form() -> set[str]:
    return set(DATA_PATHS[CHATS].decoder.type.__struct_fields__)


#: Names that a dialect gives to fields of older clients.
GENERATED = {"repeat_penalty", "structured_outputs", "json_schema", "grammar", "regex", "ebnf"}


LINK = {"url": "data:image/png;base64,AAAA", "detail": "low"}
SOURCE = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
PART = {"type": "text", "text": "a"}


@in_one_test("engine", sorted(DIALECTS))
@in_one_test(
    ("path", "part", "more"),
    [
        (CHATS, PART, {"mm_data": "/etc/a.png", "video": {"url": "/etc/a.mp4"}}),
        (CHATS, {"type": "image_url", "image_url": LINK}, {"uuid": "u", "image_url": LINK | {"path": "/etc/a.png"}}),
        ("/v1/messages", {"type": "image", "source": SOURCE}, {"source": SOURCE | {"path": "/etc/a.png"}}),
        (
            "/v1/messages",
            {"type": "tool_result", "tool_use_id": "1", "content": [PART]},
            {"content": [PART | {"file": {"path": "/etc/a"}}], "files": ["/etc/a"]},
        ),
    ],
)
def test_members_of_parts_that_no_form_defines_do_not_reach_the_engine(
    engine: str, path: str, part: dict[str, Any], more: dict[str, Any]
) -> None:
    messages = [{"role": "user", "content": [PART, part | more]}]
    assert to_engine(engine, path, messages=messages, max_tokens=1)["messages"][0]["content"] == [PART, part]


@in_one_test("engine", sorted(DIALECTS))
@in_one_test(
    ("path", "field"),
    [
        (CHATS, {"prediction": {"type": "content", "content": [{"type": "text", "image": "/etc/a.png"}]}}),
        ("/v1/messages", {"context_management": [{"image": "/etc/a.png"}], "max_tokens": 1}),
        ("/v1/messages", {"inference_geo": {"file": "/etc/a"}, "max_tokens": 1}),
        ("/v1/messages", {"cache_control": {"type": "ephemeral", "source": "/etc/a"}, "max_tokens": 1}),
    ],
)
def test_a_field_that_no_engine_reads_is_not_passed_on_with_contents_of_no_form(
    engine: str, path: str, field: dict[str, Any]
) -> None:
    assert "/etc/a" not in json.dumps(to_engine(engine, path, messages=CHAT["messages"], **field))


def test_constraints_have_only_the_members_that_were_judged() -> None:
    for members in ({"url": "http://127.0.0.1"}, {"json": {}, "$ref": "file:///etc/passwd"}, {"_backend": "a"}):
        refusal = refused(VLLM, structured_outputs=members)
        assert refusal.code == "invalid_request" and "structured_outputs" in str(refusal.param)
    whole = {"json": {"type": "object"}, "whitespace_pattern": " ?", "disable_any_whitespace": True}
    assert to_engine(VLLM, structured_outputs=whole)["structured_outputs"] == whole


@in_one_test(
    ("engine", "field", "value"),
    [
        (LLAMA_CPP, "structured_outputs", {"json": {"type": "object"}}),
        (LLAMA_CPP, "structured_outputs", True),
        (LLAMA_CPP, "regex", "a+"),
        (VLLM, "json_schema", {"type": "object"}),
        (VLLM, "grammar", 'root ::= "a"'),
        (SGLANG, "structured_outputs", {"regex": "a+"}),
        (TRANSFORMERS, "json_schema", True),
    ],
)
def test_a_constraint_of_another_engine_is_refused_and_not_left_out(engine: str, field: str, value: Any) -> None:
    assert refused(engine, **{field: value}).param == field
    absent: dict[str, Any] = {field: None}
    assert field not in to_engine(engine, **absent)


@in_one_test(
    ("fields", "param"),
    [
        ({"json_schema": True}, "json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": True}}},
         "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object", "schema": True}}, "response_format.schema"),
        ({"chat_template_kwargs": 5}, "chat_template_kwargs"),
        ({"chat_template_kwargs": "[]"}, "chat_template_kwargs"),
        ({"chat_template_kwargs": False}, "chat_template_kwargs"),
    ],
)  # fmt: skip
def test_a_schema_and_the_arguments_of_a_template_are_objects(fields: dict[str, Any], param: str) -> None:
    assert refused(LLAMA_CPP, **fields).param == param


@in_one_test("engine", ["llama.cpp", "Transformers", "SGLang"])
@in_one_test(
    ("path", "field"),
    [
        (CHATS, {"bad_words": ["a"]}),
        (CHATS, {"allowed_token_ids": [1]}),
        (CHATS, {"use_beam_search": True}),
        (CHATS, {"documents": [{"text": "a"}]}),
        (CHATS, {"system": "s"}),
        (CHATS, {"stop_sequences": ["a"]}),
        (CHATS, {"format": "json"}),
        (CHATS, {"max_new_tokens": 5}),
        (CHATS, {"best_of": 2}),
        (CHATS, {"top_a": 0.2}),
        (CHATS, {"tfs_z": 0.9}),
        (CHATS, {"random_seed": 3}),
        (CHATS, {"options": {"num_ctx": 4096}}),
        (CHATS, {"truncate_prompt_tokens": 3}),
        (CHATS, {"input_extra": [{"text": "a"}]}),
        (CHATS, {"modalities": "audio"}),
        (CHATS, {"modalities": True}),
        (CHATS, {"modalities": {"text": 1}}),
        (COMPLETIONS, {"add_special": False}),
        ("/v1/completions", {"truncate_prompt_tokens": 3}),
        (CHATS, {"chat_template": "{{ messages }}"}),
        ("/v1/completions", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("/v1/completions", {"tool_choice": "required"}),
        ("/v1/embeddings", {"return_sparse": True, "input": "a"}),
    ],
)
def test_a_field_without_which_the_answer_is_another_one_is_refused_where_it_is_not_read(
    engine: str, path: str, field: dict[str, Any]
) -> None:
    if engine == "Transformers" and path == "/v1/embeddings":
        return  # it reads the field
    rest: dict[str, Any] = {"prompt": "a"} if path == COMPLETIONS else {}
    (name,) = field.keys() - {"input"}
    assert refused(engine, path, **rest, **field).param == name


@in_one_test("engine", sorted(DIALECTS))
@in_one_test(
    "field",
    [
        *({"repeat_penalty": 1.0}, {"add_special_tokens": False}, {"modalities": []}, {"modalities": "text"}),
        *({"min_tokens": 0}, {"format": ""}, {"stop_sequences": []}, {"best_of": 1}, {"system": None}, {"echo": False}),
        *({"grammar": ""}, {"regex": ""}, {"ebnf": None}, {"structured_outputs": {}}),
        *({"chat_template": ""}, {"lora": []}, {"id_slot": -1}, {"logits_processors": []}, {"mm_processor_kwargs": {}}),
        *({"num_predict": -1}, {"n_predict": -1}, {"max_new_tokens": -1}, {"truncate_prompt_tokens": -1}),
        *({"top_a": 0}, {"tfs_z": 1.0}, {"typical_p": 1}, {"mirostat": 0}, {"top_n_sigma": -1}, {"options": {}}),
    ],
)
def test_a_value_without_an_effect_is_passed_over(engine: str, field: dict[str, Any]) -> None:
    assert to_engine(engine, CHATS, messages=CHAT["messages"], **field)["messages"] == CHAT["messages"]


@in_one_test(
    ("engine", "path", "field"),
    [
        *((engine, CHATS, {"repeat_penalty": 1.2}) for engine in (VLLM, SGLANG, TRANSFORMERS)),
        *((engine, CHATS, {"no_stop_trim": True}) for engine in (LLAMA_CPP, VLLM, TRANSFORMERS)),
        *((engine, COMPLETIONS, {"add_special_tokens": False}) for engine in (LLAMA_CPP, TRANSFORMERS)),
    ],
)
def test_a_field_of_another_engine_that_changes_the_answer_is_refused(
    engine: str, path: str, field: dict[str, Any]
) -> None:
    rest: dict[str, Any] = {"prompt": "a"} if path == COMPLETIONS else {}
    assert refused(engine, path, **rest, **field).param == next(iter(field))


@in_one_test("engine", sorted(DIALECTS))
def test_a_choice_among_no_tools_is_removed_from_a_completion(engine: str) -> None:
    assert "tool_choice" not in to_engine(engine, COMPLETIONS, prompt="a", tool_choice="auto")


@in_one_test("engine", sorted(DIALECTS))
def test_a_message_may_ask_for_a_text_in_the_words_of_a_chat(engine: str) -> None:
    sent = to_engine(engine, "/v1/messages", messages=CHAT["messages"], max_tokens=5, response_format={"type": "text"})
    assert "response_format" not in sent


@in_one_test("engine", DIALECTS)
def test_a_chat_with_sampling_fields_of_all_engines_is_decoded_once(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps(CHAT | {"top_k": 40, "min_p": 0.05}).encode()
    request, document = check(DATA_PATHS[CHATS].decoder, body), RequestDocument(body)
    monkeypatch.setattr(RequestDocument, "fields", None)
    assert request.is_common and prepare(RoutingTable(), route(engine=engine), request, document).body is body


@in_one_test(("name", "values"), [("top_k", (-2, -1, 2**31 - 1, 2**31)), ("min_p", (-0.1, 0, 1, 1.1))])
def test_every_engine_bounds_these_fields_as_a_chat_does(name: str, values: tuple[float, ...]) -> None:
    chats = [accepts(requests.Chat, CHAT | {name: value}) for value in values]
    assert chats == [False, True, True, False]
    for dialect in DIALECTS.values():
        assert [accepts(dialect.native.form, {name: value}) for value in values] == chats, dialect.engine


def accepts(form: Any, value: Any) -> bool:
    """Whether a value has this form."""
    try:
        msgspec.convert(value, form)
    except msgspec.ValidationError:
        return False
    return True


TEMPLATES = [
    ("/apply-template", LLAMA_CPP), ("/apply-template", TRANSFORMERS), ("/tokenize", VLLM), ("/tokenize", TRANSFORMERS),
]  # fmt: skip


@in_one_test(("path", "engine"), TEMPLATES)
@in_one_test("value", [True, 5, "x", "[]", [], {"tools": []}])
def test_the_arguments_of_a_template_are_an_object_on_each_path(path: str, engine: str, value: Any) -> None:
    refusal = refused(engine, path, messages=CHAT["messages"], chat_template_kwargs=value)
    assert str(refusal.param).startswith("chat_template_kwargs")


@in_one_test(("path", "engine"), TEMPLATES)
def test_a_switch_of_thinking_is_an_argument_of_the_template_on_each_path(path: str, engine: str) -> None:
    sent = to_engine(engine, path, messages=CHAT["messages"], enable_thinking=False, chat_template_kwargs='{"a": 1}')
    assert sent["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False, "a": 1}
    assert "enable_thinking" not in sent
    assert refused(engine, path, messages=CHAT["messages"], enable_thinking="x").param == "enable_thinking"


@in_one_test("name", ["type", "schema", "json_schema"])
def test_a_format_of_a_message_beside_its_place_is_refused(name: str) -> None:
    for engine in DIALECTS:
        fields: dict[str, Any] = {"messages": CHAT["messages"], "max_tokens": 5, "output_config": {name: "json_schema"}}
        refusal = refused(engine, "/v1/messages", **fields)
        assert refusal.param == f"output_config.{name}" and refusal.hint == "Send output_config.format."
