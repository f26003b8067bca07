"""Files in chats and responses: a text reaches the model, and any other file is refused by name."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.gateway.responses.test_request import messages
from tests.gateway.responses.test_request import refused as refused_response
from tests.gateway.test_canonical_requests import ENGINES, refused, sent
from tests.support.cases import in_one_test

TEXT = "grüße 你好"


def uri(text: str, head: str = "data:text/plain;base64,") -> str:
    return head + base64.b64encode(text.encode()).decode()


def in_chat(file: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "go"}, {"type": "file", "file": file}]}]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_text_file_of_a_chat_is_a_text_after_its_name(engine: str) -> None:
    body = sent(engine, messages=in_chat({"file_data": uri(TEXT), "filename": "a.txt", "file_id": None}))
    parts = [{"type": "text", "text": "go"}, {"type": "text", "text": f"a.txt\n\n{TEXT}"}]
    assert body["messages"] == [{"role": "user", "content": parts}]


def test_a_text_file_of_a_response_is_set_apart_from_the_question() -> None:
    file = {"type": "input_file", "filename": "a.txt", "file_data": uri(TEXT)}
    content = [file, {"type": "input_text", "text": "go"}]
    assert messages({"role": "user", "content": content})[0]["content"] == f"a.txt\n\n{TEXT}\n\ngo"


@in_one_test(
    "data",
    [
        uri(TEXT, "data:text/markdown;charset=UTF-8;base64,"),
        uri(TEXT, "data:application/json;base64,"),
        uri(TEXT, "data:;base64,"),
        uri("\ufeff" + TEXT),
        "data:text/plain,gr%C3%BC%C3%9Fe%20%E4%BD%A0%E5%A5%BD",
    ],
)
def test_each_form_of_a_text_is_read(data: str) -> None:
    assert sent("vLLM", messages=in_chat({"file_data": data}))["messages"][0]["content"][1]["text"] == TEXT


@in_one_test(
    ("file", "member", "reason"),
    [
        ({"file_data": "data:application/pdf;base64,JVBERi0="}, ".file.file_data", "application/pdf"),
        ({"file_data": "JVBERi0="}, ".file.file_data", "no media type"),
        ({"file_data": "data:text/plain;base64,%%%"}, ".file.file_data", "base64"),
        ({"file_data": "data:text/plain;base64,/w=="}, ".file.file_data", "0xff at byte 0"),
        ({"file_data": "data:text/plain;charset=utf-16,a"}, ".file.file_data", "'utf-16'"),
        ({"file_data": 1}, ".file.file_data", "data: URI"),
        ({"file_id": "f"}, ".file.file_id", "not kept"),
        ({}, ".file.file_data", "required"),
        (None, ".file", "required"),
    ],
)
def test_another_file_is_refused_by_name(file: Any, member: str, reason: str) -> None:
    refusal = refused(messages=in_chat(file))
    assert refusal.param == f"messages[0].content[1]{member}" and reason in refusal.cause


def test_a_file_of_a_response_that_is_no_text_is_refused_by_name() -> None:
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}
    refusal = refused_response([{"role": "user", "content": [file]}])
    assert refusal.param == "input[0].content[0].file_data" and "application/pdf" in refusal.cause


def test_a_file_that_is_kept_elsewhere_is_refused_by_name() -> None:
    refusal = refused_response([{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}])
    assert refusal.param == "input[0].content[0].file_id" and "file_data" in str(refusal.hint)


def test_the_address_of_a_file_is_not_fetched() -> None:
    refusal = refused_response([{"role": "user", "content": [{"type": "input_file", "file_url": "https://a.b/c.txt"}]}])
    assert refusal.code == "media_address"
