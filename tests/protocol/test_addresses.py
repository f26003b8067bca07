"""No request holds an address that an engine would fetch, wherever in the body it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import in_one_test
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.addresses import MEDIA_FIELDS, is_media_field, may_contain_address
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.protocol.requests import Request

CHAT, COMPLETION, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES, MESSAGES, COUNT = "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"
ADDRESS = "http://127.0.0.1:8000/a.png"
IMAGE = "data:image/png;base64,iVBORw0KGgo="
TEXT = {"type": "text", "text": "What is this?"}


def accepted(path: str, body: Any) -> Request:
    return check(DATA_PATHS[path].decoder, body if isinstance(body, bytes) else json.dumps(body).encode())


def refused(path: str, body: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        accepted(path, body)
    assert caught.value.status == 400
    return caught.value


def chat(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": [TEXT, *parts]}], **fields}


def message(*parts: Any, **fields: Any) -> dict[str, Any]:
    return chat(*parts, max_tokens=1, **fields)


PART = "messages[0].content[1]"


@in_one_test(
    ("path", "body", "param"),
    [
        (CHAT, chat({"type": "image_url", "image_url": {"url": ADDRESS}}), f"{PART}.image_url.url"),
        (CHAT, chat({"type": "image_url", "image_url": ADDRESS}), f"{PART}.image_url"),
        (CHAT, chat({"type": "image_url", "image_url": {"url": "HTTPS://a.b/c"}}), f"{PART}.image_url.url"),
        (CHAT, chat({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}), f"{PART}.image_url.url"),
        (CHAT, chat({"type": "image_url", "image_url": {"url": "//host/a"}}), f"{PART}.image_url.url"),
        (CHAT, chat({"type": "audio_url", "audio_url": {"url": ADDRESS}}), f"{PART}.audio_url.url"),
        (CHAT, chat({"type": "text", "text": "a", "image": ADDRESS}), f"{PART}.image"),
        (CHAT, chat({"type": "text", "text": "a", "video": [ADDRESS]}), f"{PART}.video[0]"),
        (CHAT, chat({"type": "text", "text": "a", "file": {"file_data": ADDRESS}}), f"{PART}.file.file_data"),
        (CHAT, chat({"type": "text", "input_video": {"data": "file:/etc/passwd"}}), f"{PART}.input_video.data"),
        (CHAT, chat(images=["ftp://host/a"]), "images[0]"),
        (CHAT, chat(messages_extra={"image_url": " \nhttp://host"}), "messages_extra.image_url"),
        (CHAT, chat(tools=[{"type": "mcp", "server_url": ADDRESS}]), "tools[0].server_url"),
        (COMPLETION, {"model": "m", "prompt": "a", "multi_modal_data": {"image": ADDRESS}}, "multi_modal_data.image"),
        (MESSAGES, message({"type": "image", "source": {"type": "url", "url": ADDRESS}}), f"{PART}.source.url"),
        (
            MESSAGES,
            message({"type": "tool_result", "content": [{"type": "image", "source": {"url": ADDRESS}}]}),
            f"{PART}.content[0].source.url",
        ),
        (
            COUNT,
            chat({"type": "tool_result", "content": [{"type": "image", "source": {"url": ADDRESS}}]}),
            f"{PART}.content[0].source.url",
        ),
        (
            RESPONSES,
            {"model": "m", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": ADDRESS}]}]},
            "input[0].content[0].image_url",
        ),
        (
            RESPONSES,
            {
                "model": "m",
                "input": [
                    {"type": "function_call_output", "output": [{"type": "input_image", "image_url": ADDRESS}]},
                ],
            },
            "input[0].output[0].image_url",
        ),
        (EMBEDDINGS, {"model": "m", "input": [{"text": "a", "image": ADDRESS}]}, "input[0].image"),
        (
            EMBEDDINGS,
            {"model": "m", "input": "a", "messages": chat({"image_url": {"url": ADDRESS}})["messages"]},
            f"{PART}.image_url.url",
        ),
        ("/tokenize", chat({"type": "image_url", "image_url": {"url": ADDRESS}}), f"{PART}.image_url.url"),
        ("/apply-template", chat({"type": "image_url", "image_url": {"url": ADDRESS}}), f"{PART}.image_url.url"),
        ("/rerank", {"model": "m", "query": "q", "documents": [{"text": "a", "image": ADDRESS}]}, "documents[0].image"),
        (MESSAGES, message(cache_control={"url": ADDRESS}), "cache_control.url"),
        (
            MESSAGES,
            message({"type": "text", "text": "a", "cache_control": {"url": ADDRESS}}),
            f"{PART}.cache_control.url",
        ),
        (MESSAGES, message(thinking={"type": "enabled", "url": ADDRESS}), "thinking.url"),
        (MESSAGES, message(tool_choice={"type": "any", "image": ADDRESS}), "tool_choice.image"),
        (CHAT, chat(prediction={"type": "content", "image_url": {"url": ADDRESS}}), "prediction.image_url.url"),
        (CHAT, chat(audio={"data": ADDRESS}), "audio.data"),
        (CHAT, chat(stream_options={"url": ADDRESS}), "stream_options.url"),
        (
            CHAT,
            chat(tool_choice={"type": "function", "function": {"name": "f", "url": ADDRESS}}),
            "tool_choice.function.url",
        ),
        (CHAT, chat(chat_template_kwargs={"image": ADDRESS}), "chat_template_kwargs.image"),
        (
            CHAT,
            {"model": "m", "messages": [{"role": "assistant", "content": "a", "audio": {"data": ADDRESS}}]},
            "messages[0].audio.data",
        ),
        ("/infill", {"model": "m", "input_extra": [{"text": "a", "url": ADDRESS}]}, "input_extra[0].url"),
    ],
)
def test_an_address_is_refused_wherever_an_engine_may_read_media(path: str, body: Any, param: str) -> None:
    refusal = refused(path, body)
    assert (refusal.code, refusal.param) == ("media_address", param)
    assert "data: URI" in refusal.cause and param in refusal.cause


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("http://h/a", r"http:\/\/h\/a"),
        ("http://h/a", r"\u0068ttp://h/a"),
        ("http://h/a", r"http\u003a\u002f\u002fh/a"),
        ("http:\\\\h\\a", r"http:\\\\h\\a"),
        ("\\\\h\\a", r"\\\\h\\a"),
        ("/\\h/a", r"/\\h/a"),
        ("\\/h/a", r"\\/h/a"),
        ("\n//h/a", r"\n//h/a"),
        (" //h/a", r" //h/a"),
        ("file:/etc/passwd", r"file:/etc/passwd"),
    ],
)
def test_an_address_is_seen_however_json_writes_it(given: str, written: str) -> None:
    for name in ("video", r"\u0076ideo"):
        body = rb'{"model":"m","messages":[{"role":"user","content":"a"}],"%b":"%b"}' % (
            name.encode(),
            written.encode(),
        )
        assert json.loads(body)["video"] == given
        assert refused(CHAT, body).code == "media_address"


@in_one_test(
    ("path", "part", "kind"),
    [
        (CHAT, {"type": "input_video", "input_video": {"data": "AAAA"}}, "input_video"),
        (CHAT, {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}, "video_url"),
        (CHAT, {"type": "image_embeds", "image_embeds": "AAAA"}, "image_embeds"),
        (MESSAGES, {"type": "file", "file": {"file_data": "AAAA"}}, "file"),
        (CHAT, {"type": "document", "source": {"type": "text", "data": "AAAA"}}, "document"),
        (MESSAGES, {"type": "tool_result", "content": [{"type": "input_video"}]}, "input_video"),
    ],
)
def test_content_of_a_type_that_is_not_on_the_list_is_refused_by_name(path: str, part: Any, kind: str) -> None:
    refusal = refused(path, chat(part, max_tokens=1))
    assert refusal.code == "unsupported_content"
    assert kind in refusal.cause and str(refusal.param).endswith("type") and "text" in str(refusal.hint)


def test_the_media_of_an_unknown_item_of_a_response_is_no_address() -> None:
    # `gateway.responses` refuses the item by its type.
    item = {"type": "computer_call_output", "output": {"image_url": "https://a.b/c"}}
    assert refused(RESPONSES, {"model": "m", "input": [item]}).param == "input[0].output.image_url"


@pytest.mark.parametrize("data", ["http:/h", "file:/etc/passwd", "~.wav"])
def test_sound_is_base64(data: str) -> None:
    assert refused(CHAT, chat({"type": "input_audio", "input_audio": {"data": data}})).param is not None


@in_one_test(
    ("path", "body"),
    [
        (CHAT, chat({"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}})),
        (CHAT, chat({"type": "image_url", "image_url": IMAGE})),
        (CHAT, chat({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})),
        (CHAT, chat({"type": "text", "text": "http://a.b/c is where it is"}, user="https://a.b/users/7")),
        (CHAT, chat(metadata={"url": "https://a.b/c"})),
        (CHAT, chat(unknown={"note": "https://a.b/c"})),
        (CHAT, {"model": "m", "messages": [{"role": "tool", "tool_call_id": "1", "content": "https://a.b"}]}),
        (
            CHAT,
            {
                "model": "m",
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {
                                "id": "1",
                                "type": "function",
                                "function": {"name": "f", "arguments": '{"url": "https://a.b"}'},
                            }
                        ],
                    }
                ],
            },
        ),
        (
            CHAT,
            chat(
                tools=[
                    {
                        "type": "function",
                        "function": {
                            "name": "fetch",
                            "parameters": {"properties": {"url": {"type": "string", "default": "https://a.b"}}},
                        },
                    }
                ],
                response_format={"type": "json_schema", "json_schema": {"schema": {"$id": "https://a.b"}}},
            ),
        ),
        (MESSAGES, message({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}})),
        (MESSAGES, message({"type": "tool_use", "id": "1", "name": "fetch", "input": {"url": "https://a.b/c"}})),
        (MESSAGES, message({"type": "tool_use", "id": "1", "name": "f", "input": {"url": "https://a.b"}}, other=1)),
        (
            RESPONSES,
            {
                "model": "m",
                "input": [
                    {
                        "type": "message",
                        "role": "assistant",
                        "content": [
                            {
                                "type": "output_text",
                                "text": "a",
                                "annotations": [{"type": "url_citation", "url": "https://a.b"}],
                            }
                        ],
                    },
                    {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"url": "https://a.b"}'},
                ],
            },
        ),
    ],
)
def test_images_in_the_request_and_addresses_in_text_pass(path: str, body: Any) -> None:
    assert accepted(path, body).model == "m"


@in_one_test(
    "body",
    [
        chat({"type": "image_url", "image_url": {"url": IMAGE}}, temperature=0, stream=True, tools=[]),
        chat({"type": "text", "text": "https://a.b/c"}, stop=["a"], stream_options={"include_usage": True}),
        {"model": "m", "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]},
        chat(prompt_cache_key="a-b_c", store=False, tool_choice={"type": "function", "function": {"name": "f"}}),
        chat({"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "5m"}}),
        chat(
            chat_template_kwargs={"enable_thinking": False}, modalities=["text"], stream_options={"include_usage": True}
        ),
    ],
)
def test_a_plain_body_is_decoded_once_and_not_searched(body: Any) -> None:
    assert not accepted(CHAT, body).has_further_fields


KEYS = st.sampled_from([*sorted(MEDIA_FIELDS), "x_url", "note", "text", "content", "type", "messages", "Image"])
ADDRESSES = (
    ADDRESS,
    "file:///etc/passwd",
    "file:/etc/passwd",
    "//h/a",
    " //h",
    "https://h",
    r"http:\\h\a",
    r"\\h\a",
    r"/\h",
)
LEAVES = st.sampled_from([*ADDRESSES, "text", IMAGE, "", r"C:\a", 7, None, True])
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


def holds_address(value: Any, is_media: bool) -> bool:
    """What the search must find, said in another way."""
    if isinstance(value, dict):
        return any(holds_address(inner, is_media or is_media_field(name)) for name, inner in value.items())
    if isinstance(value, list):
        return any(holds_address(inner, is_media) for inner in value)
    return is_media and isinstance(value, str) and value in ADDRESSES


@given(
    path=st.sampled_from(sorted(DATA_PATHS)), name=st.sampled_from(["extra", "image", "documents_extra"]), tree=TREES
)
def test_no_random_body_gets_an_address_past(path: str, name: str, tree: Any) -> None:
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}], "prompt": "a", "input": "a"}
    body |= {"query": "q", "documents": ["d"], "tokens": [1], name: tree}
    if DATA_PATHS[path].upstream == "/detokenize" and path != "/detokenize":
        body["input"] = [1]
    encoded = json.dumps(body).encode()
    if not holds_address({name: tree}, is_media=False):
        assert accepted(path, encoded).model == "m"
        return
    assert may_contain_address(encoded)
    assert refused(path, encoded).code == "media_address"
