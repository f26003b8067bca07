"""A common chat is passed on as it is, and the long way through the gateway would not change it either."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.harness import CHAT, route
from tests.gateway.test_plain_chats import EXACT, VALUES, bodies
from tests.support.cases import in_one_test
from xinference.engines.dialects import DIALECTS
from xinference.gateway import common_rewrites
from xinference.gateway.canonical_requests import make_canonical
from xinference.gateway.common_rewrites import EngineFormats
from xinference.gateway.engine_answers import answer_rewrite, events_rewrite
from xinference.gateway.engine_requests import _fields_to_rewrite, prepare
from xinference.gateway.request_document import RequestDocument
from xinference.protocol import exact_requests, known_texts, request_check, requests
from xinference.protocol.common_chats import NATIVE, USUAL_NATIVE, CommonChat, common_chat
from xinference.protocol.constraint_fields import CONSTRAINTS
from xinference.protocol.constraint_limits import MAX_BYTES
from xinference.protocol.errors import Refusal
from xinference.protocol.known_texts import KnownTexts, are_common_tools
from xinference.protocol.request_check import check
from xinference.routing.table import RoutingTable

#: The fields that are replaced in the bytes of a common chat.
REPLACED = {"response_format", "enable_thinking", "chat_template_kwargs"}
LLAMA_CPP = "llama.cpp"
DECODER: Any = msgspec.json.Decoder(requests.Chat)
PIXEL = {"url": "data:image/png;base64,AAAA"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "default": None}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "one", "description": "d", "parameters": SCHEMA, "strict": True}}


def call(arguments: Any = "{}", **changes: Any) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": "one", "arguments": arguments}} | changes


#: Contents, calls and further members of messages, usual and odd ones.
CONTENTS = st.sampled_from(
    [
        "hi", "", None, [], [{"type": "text", "text": "a"}], [{"type": "text"}], [{"type": "input_text", "text": "a"}],
        [{"type": "image_url", "image_url": PIXEL}], [{"type": "image_url", "image_url": PIXEL | {"detail": "low"}}],
        [{"type": "image_url", "image_url": PIXEL["url"]}], [{"type": "image_url", "image_url": {"url": "http://a/b"}}],
        [{"type": "text", "text": "a", "cache_control": None}], [{"type": "refusal", "refusal": "no"}],
        [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}],
        [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
    ]
)  # fmt: skip
CALLS = st.sampled_from(
    [
        [], None, [call()], [call('{"a": 1}', index=0)], [call("")], [call("[]")], [call("null")], [call("{")],
        [call({"a": 1})], [call(None)], [call(type="custom")], [call(function={"name": "", "arguments": "{}"})],
        [call(), call("text")], [call(id=None)], [{"id": "c"}], [call(function={"name": "one"})],
    ]
)  # fmt: skip
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
        optional={
            "content": CONTENTS,
            "tool_calls": CALLS,
            "name": st.sampled_from(["n", None]),
            "tool_call_id": st.sampled_from(["c", None]),
            "reasoning_content": st.sampled_from(["r", None]),
            "annotations": st.just([]),
        },
    ),
    min_size=1,
    max_size=3,
)
FIELDS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from([None, *values]) for name, values in VALUES.items() if name != "messages"}
)
TOOLS = st.sampled_from(
    [
        None, [TOOL], [TOOL, TOOL], [TOOL | {"cache_control": None}], [{"type": "custom", "name": "one"}],
        [{"function": {"name": "one"}}], [{"type": "function", "function": {"name": ""}}],
        [{"type": "function", "function": {"name": "one", "parameters": None}}],
        [{"type": "function", "function": {"name": "one", "parameters": {"$ref": "#"}}}],
        [{"type": "function", "function": {"name": "one", "parameters": {"properties": {"a": True}}}}],
    ]
)  # fmt: skip


@in_one_test("body", [*bodies()])
def test_a_common_chat_is_what_the_long_way_makes_of_it(body: bytes) -> None:
    _check_common(body)


@given(MESSAGES, FIELDS, TOOLS)
def test_each_combination_of_messages_and_fields_that_is_common_is_what_the_long_way_makes_of_it(
    messages: Any, fields: dict[str, Any], tools: Any
) -> None:
    body = CHAT | fields | {"messages": messages}
    _check_common(json.dumps(body if tools is None else body | {"tools": tools}).encode())


@given(MESSAGES, TOOLS)
def test_each_conversation_with_tools_that_is_common_is_what_the_long_way_makes_of_it(
    messages: Any, tools: Any
) -> None:
    _check_common(json.dumps(CHAT | {"messages": messages, "tools": tools, "tool_choice": "auto"}).encode())


def _check_common(body: bytes) -> None:
    common = _common(body)
    if common is None:
        return
    exact, document = EXACT.decode(body), RequestDocument(body)
    make_canonical(exact, document)
    assert not document.is_changed
    renamed = {"repetition_penalty", "stop_token_ids"} if common.has_native else set()
    assert _fields_to_rewrite(exact).keys() <= renamed | REPLACED
    for name in exact.__struct_fields__:
        if name not in ("messages", "tools", "stream_options", "chat_template_kwargs"):
            assert getattr(common, name) == getattr(exact, name)
    assert bool(common.tools) == bool(exact.tools)
    assert [message.role for message in common.messages] == [message.role for message in exact.messages]
    for dialect in DIALECTS.values():
        ways = []
        for chat in (common, exact):
            exchange = dialect.exchange(chat, "m")
            rewrites = answer_rewrite(chat, "m", exchange), events_rewrite(chat, exchange), exchange.body
            ways.append([rewrite is None for rewrite in rewrites] + [exchange.choices])
        assert ways[0] == ways[1]


def _common(body: bytes) -> CommonChat | None:
    try:
        return common_chat(body)
    except msgspec.ValidationError:
        return None


COMMON = [
    CHAT,
    CHAT | {"temperature": 0.7, "max_tokens": 256, "seed": 1, "top_p": 0.9, "user": "u", "stream": True, "stop": ["a"]},
    CHAT | {"temperature": 0.7, "top_k": 40, "min_p": 0.05},
    CHAT | {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    CHAT | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": PIXEL}]}]},
    CHAT | {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
    CHAT | {"enable_thinking": True},
    CHAT | {"chat_template_kwargs": {"enable_thinking": False, "effort": "high", "tags": ["a", None]}},
    CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": SCHEMA}}},
    CHAT
    | {
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [call('{"a": "b"}')]},
            {"role": "tool", "content": "1", "tool_call_id": "c"},
        ],
        "tools": [TOOL],
    },
]


@in_one_test("body", COMMON)
def test_chats_of_usual_clients_are_common(body: dict[str, Any]) -> None:
    assert check(DECODER, json.dumps(body).encode()).is_common


UNCOMMON = [
    CHAT | {"tool_choice": "auto"},
    CHAT | {"typical_p": None},
    CHAT | {"min_tokens": None},
    CHAT | {"cache_salt": "http://127.0.0.1"},
    CHAT | {"unknown": 1},
    CHAT | {"top_k": None},
    CHAT | {"user": None},
    CHAT | {"tools": None},
    CHAT | {"enable_thinking": None},
    CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
    CHAT | {"response_format": {"type": "text", "json_schema": None}},
    CHAT | {"chat_template_kwargs": "{}"},
    CHAT | {"chat_template_kwargs": {"tools": []}},
    CHAT | {"chat_template_kwargs": {"a": "http://127.0.0.1"}},
    CHAT | {"messages": [{"role": "user", "content": None}]},
    CHAT | {"messages": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]},
    CHAT | {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call("[1]")]}]},
]


@in_one_test("body", UNCOMMON)
def test_a_chat_that_a_step_may_change_is_not_common(body: dict[str, Any]) -> None:
    assert not check(DECODER, json.dumps(body).encode()).is_common


def test_a_common_chat_has_a_type_without_null_for_each_field_of_a_chat() -> None:
    own = set(CommonChat.__struct_fields__) - set(USUAL_NATIVE)
    assert own == set(exact_requests.Chat.__struct_fields__)
    for name in VALUES:
        assert _common(json.dumps(CHAT | {name: None}).encode()) is None


def test_the_fields_of_engines_are_those_of_their_tables() -> None:
    tables = {name: kind for dialect in DIALECTS.values() for name, kind in dialect.native.taken.items()}
    own = set(exact_requests.Chat.__struct_fields__)
    others = {"documents", "input_extra", "repetition_detection", "n_cmpl", "n_predict"}  # objects, and limits
    assert set(NATIVE) == tables.keys() - own - CONSTRAINTS - others


#: A chat of each kind, and values of fields of engines: right ones, wrong ones and those without an effect.
CHATS = [
    CHAT,
    CHAT | {"stream": True, "tools": [TOOL], "tool_choice": "auto", "logit_bias": {"5": 1}},
    CHAT
    | {
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [call('{"a": "b"}')]},
            {"role": "tool", "content": "1", "tool_call_id": "c"},
        ]
    },
]
NATIVE_VALUES = [0, 1, 0.5, -1, 2**40, True, "auto", "", [1], ["top_k"], [], ["a" * 2000]]


@in_one_test("engine", sorted(DIALECTS))
@in_one_test("name", [*NATIVE, "repetition_penalty", "stop_token_ids"])
def test_a_field_of_an_engine_has_the_same_effect_as_on_the_long_way(engine: str, name: str) -> None:
    for chat in CHATS:
        for value in NATIVE_VALUES:
            body = json.dumps(chat | {name: value}).encode()
            short = _sent(engine, check, body)
            assert short == _sent(engine, _check_long, body), (value, short)


#: Values of the fields that are replaced in a body: usual, odd and wrong ones.
SCHEMAS: list[Any] = [
    SCHEMA, {}, True, None, {"$ref": "#"}, {"$ref": "http://a/b"}, {"type": "string", "pattern": "^\\d+$"},
    {"allOf": [{"type": "object"}]}, {"not": {}}, {"type": "number", "minimum": 1}, {"title": "T", "const": "}\\\""},
    {"type": "array", "items": {"pattern": "a" * 5000}}, {"minItems": 5, "maxItems": 4}, {"enum": list(range(2000))},
]  # fmt: skip
REPLACED_VALUES: dict[str, list[Any]] = {
    "enable_thinking": [None, False, True, 0, "false"],
    "chat_template_kwargs": [
        None, {}, "{}", "{", [], 1, {"enable_thinking": True}, {"thinking": None}, {"effort": "high", "a": ["b", {}]},
        {"tools": []}, {"messages": None}, {"a": {"url": "http://a/b"}}, {"url": "http:a"}, {"a": "b/c"}, {"a": "\\"},
        {"a": "\x00"}, {"enable_thinking": "}"},
    ],
    "response_format": [
        None, {}, "text", {"type": "text"}, {"type": "text", "schema": None}, {"type": "json_object"},
        {"type": "other"}, {"type": "json_object", "schema": True}, {"type": ["text"]}, {"type": "structural_tag"},
        {"type": "json_schema"}, {"type": "json_schema", "json_schema": None},
        {"type": "json_schema", "json_schema": {"name": None, "schema": {}}},
        *({"type": "json_object", "schema": schema} for schema in SCHEMAS),
        *(
            {"type": "json_schema", "json_schema": {"name": "a", "schema": schema} | strict}
            for schema in SCHEMAS for strict in ({}, {"strict": True})
        ),
    ],
}  # fmt: skip
#: Further fields, some of which have the names or values of the others in them.
FURTHER = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.sampled_from([{"a": "b"}, {"enable_thinking": "false"}, {'a"enable_thinking': "false"}]),
        "user": st.sampled_from(["enable_thinking", '"response_format": {"type": "text"}', "a\\", "é", "}"]),
        "stop": st.sampled_from([["enable_thinking", "false"], "a"]),
        "min_tokens": st.sampled_from([1, 10**12]),
        "typical_p": st.just(0.5),
        "repetition_penalty": st.sampled_from([1.1, 0]),
        "stop_token_ids": st.just([2]),
        "guided_json": st.just({"type": "object"}),
        "thinking": st.just(True),
        "stream": st.booleans(),
        "n": st.just(2),
        "priority": st.just(1),
        "tools": st.just([TOOL]),
    },
)


@in_one_test("engine", sorted(DIALECTS))
@in_one_test(("name", "value"), [(name, value) for name, values in REPLACED_VALUES.items() for value in values])
def test_a_replaced_field_has_the_same_effect_as_on_the_long_way(engine: str, name: str, value: Any) -> None:
    for chat in CHATS:
        for body in _written({name: value} | chat), _written(chat | {name: value}):
            assert _sent(engine, check, body) == _sent(engine, _check_long, body)


@given(
    engine=st.sampled_from(sorted(DIALECTS)),
    fields=st.fixed_dictionaries({}, optional={name: st.sampled_from(of) for name, of in REPLACED_VALUES.items()}),
    further=FURTHER,
    chat=st.sampled_from(CHATS),
    data=st.data(),
)
def test_replaced_fields_among_others_have_the_same_effect_as_on_the_long_way(
    engine: str, fields: dict[str, Any], further: dict[str, Any], chat: dict[str, Any], data: st.DataObject
) -> None:
    members = data.draw(st.permutations([*(chat | further | fields).items()]))
    body = _written(dict(members), *data.draw(st.sampled_from(SEPARATORS)), ascii_only=data.draw(st.booleans()))
    assert _sent(engine, check, body) == _sent(engine, _check_long, body)


SEPARATORS = [(", ", ": "), (",", ":"), (" ,\n", " : "), (",", ":\t ")]


def _written(fields: dict[str, Any], comma: str = ", ", colon: str = ": ", *, ascii_only: bool = True) -> bytes:
    return json.dumps(fields, separators=(comma, colon), ensure_ascii=ascii_only).encode()


@in_one_test("engine", sorted(DIALECTS))
@in_one_test(
    "fields",
    [
        {"enable_thinking": False},
        {"enable_thinking": True, "min_tokens": 1},
        {"chat_template_kwargs": {"enable_thinking": False, "effort": "high"}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
        {"response_format": {"type": "json_object", "schema": {"type": "string", "pattern": "^\\d$"}}, "user": "é"},
    ],
)
def test_a_replaced_field_is_replaced_without_decoding_the_body(engine: str, fields: dict[str, Any]) -> None:
    if "min_tokens" in fields and "min_tokens" not in DIALECTS[engine].native.taken:
        return  # it is refused
    for members in (CHATS[2] | fields, fields | CHATS[2]):
        document = RequestDocument(_written(members))
        sent = prepare(RoutingTable(), route(engine=engine), check(DECODER, document.raw), document).body
        assert document._fields is None
        assert json.loads(sent) == _sent(engine, _check_long, _written(members))[0]


@in_one_test(
    "body",
    [
        b'{"model": "m", "\\u0065nable_thinking": true, "messages": %b}',
        b'{"model": "m", "\\u0065nable_thinking": true, "metadata": {"enable_thinking": true}, "messages": %b}',
        b'{"model": "m", "enable_thinking" : true, "messages": %b}',
        b'{"model": "m", "messages": %b, "enable_thinking": true, "metadata": {"a\\"enable_thinking": true}}',
        b'{"model": "m", "messages": %b, "metadata": {"enable_thinking": true}, "enable_thinking": true}',
        b'{"model": "m", "enable_thinking": true, "messages": %b, "user": "\\u00e9"}',
        b'{"model": "m", "enable_thinking": false, "messages": %b, "\\u0065nable_thinking": true}',
        b'{"\\u0065nable_thinking":true,"model":"m","messages":%b,"metadata":{"a":["enable_thinking",true]}}',
    ],
)
def test_a_name_that_is_written_in_an_odd_way_is_replaced_too(body: bytes) -> None:
    body %= json.dumps(CHAT["messages"]).encode()
    sent = _sent(LLAMA_CPP, check, body)
    assert sent == _sent(LLAMA_CPP, _check_long, body)
    assert sent[0]["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True}


def test_a_format_is_converted_once_for_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    converted, convert = [], common_rewrites._converted

    def note(dialect: Any, text: bytes) -> bytes | None:
        converted.append(text)
        return convert(dialect, text)

    monkeypatch.setattr(common_rewrites, "_converted", note)
    formats = EngineFormats(maximum=2)
    one, other, third = (b'{"type":"json_object","schema":{"maxLength":%d}}' % n for n in range(3))
    for text in (one, one, other, one):
        formats.of_engine(DIALECTS[LLAMA_CPP], text)
    assert converted == [one, other]
    formats.of_engine(DIALECTS[LLAMA_CPP], third)
    formats.of_engine(DIALECTS[LLAMA_CPP], one)
    assert converted[2:] == [third, one], "at most two are remembered"


def _check_long(decoder: Any, body: bytes) -> Any:
    """The check of a body whose form has no fields of engines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_check, "common_chat", lambda body: None)
        return check(decoder, body)


def _sent(engine: str, check_body: Any, body: bytes) -> Any:
    """The fields that the engine gets, or the refusal."""
    try:
        request = check_body(DECODER, body)
        call = prepare(RoutingTable(), route(engine=engine), request, RequestDocument(body))
    except Refusal as refusal:
        return refusal.code, refusal.cause, refusal.param
    return json.loads(call.body), call.answer is None, call.events is None


@in_one_test(
    ("engine", "fields"),
    [
        ("llama.cpp", {"typical_p": 0.9, "mirostat": 2, "samplers": ["top_k"], "cache_prompt": True}),
        ("vLLM", {"skip_special_tokens": False, "min_tokens": 3, "repetition_penalty": 1.1, "stop_token_ids": [2]}),
        ("SGLang", {"skip_special_tokens": False, "separate_reasoning": True, "repetition_penalty": 1}),
        ("Transformers", {"repetition_penalty": 1.1, "stop_token_ids": [2]}),
    ],
)
@in_one_test("chat", CHATS)
def test_a_chat_with_fields_that_its_engine_reads_is_decoded_once(
    chat: dict[str, Any], engine: str, fields: dict[str, Any]
) -> None:
    for each in (fields, *({name: value} for name, value in fields.items())):
        document = RequestDocument(json.dumps(chat | each).encode())
        request = check(DECODER, document.raw)
        assert request.is_common and not request.has_further_fields
        prepare(RoutingTable(), route(engine=engine), request, document)
        if not each.keys() & DIALECTS[engine].fields.keys():
            assert document._fields is None, each
            assert not document.is_changed


def test_a_chat_with_a_field_that_no_form_has_is_not_decoded_by_the_exact_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exact_requests.EXACT, requests.Chat, None)
    assert check(DECODER, json.dumps(CHAT | {"unknown": 0.5}).encode()).has_further_fields
    with pytest.raises(AttributeError):
        check(DECODER, json.dumps(CHAT | {"user": None}).encode())


@in_one_test("body", [*bodies(), *(json.dumps(body).encode() for body in UNCOMMON)])
def test_a_chat_of_the_exact_form_is_decoded_by_it(body: bytes) -> None:
    try:
        EXACT.decode(body)
    except msgspec.ValidationError:
        return
    with contextlib.suppress(Refusal):
        assert not check(DECODER, body).has_further_fields


def test_the_address_of_an_image_is_refused_as_in_any_chat() -> None:
    content = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]
    with pytest.raises(Refusal, match="addresses are not fetched"):
        check(DECODER, json.dumps(CHAT | {"messages": [{"role": "user", "content": content}]}).encode())


def test_tools_are_decoded_once_and_only_common_ones_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decode = [], known_texts._decode_tools

    def note(text: bytes) -> Any:
        decoded.append(text)
        return decode(text)

    monkeypatch.setattr(known_texts, "_decode_tools", note)
    known = KnownTexts(are_common_tools, maximum=2)
    one, other, third, odd = (
        msgspec.Raw(msgspec.json.encode([value]))
        for value in (TOOL, TOOL | {"function": {"name": "b"}}, TOOL | {"function": {"name": "c"}}, {"type": "custom"})
    )
    assert [known.has(tools) for tools in (one, one, odd, odd, other)] == [True, True, False, False, True]
    assert len(decoded) == 4, "tools that are not common are decoded each time"
    assert known.has(third)
    assert known.has(one)
    assert len(decoded) == 6, "at most two are remembered"


def test_tools_whose_schemas_have_to_be_searched_are_not_common() -> None:
    long = TOOL | {"function": {"name": "one", "description": "a" * MAX_BYTES}}
    assert not KnownTexts(are_common_tools).has(msgspec.Raw(msgspec.json.encode([long])))


@in_one_test(
    "fields",
    [
        {"tools": [TOOL | {"function": {"name": "f", "parameters": {"default": 1e99}}}]},
        {"messages": [{"role": "assistant", "tool_calls": [call('{"a": [1e+99]}')]}, {"role": "user", "content": "a"}]},
    ],
)
def test_a_number_that_engines_cannot_read_makes_a_chat_uncommon(fields: dict[str, Any]) -> None:
    body = json.dumps(CHAT | fields).encode()
    assert check(DECODER, body).is_common
    assert not check(DECODER, body.replace(b"e+99", b"e+999")).is_common
