"""Answers that no engine should give: each is a typed 502 for the client, and no stack trace in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.harness import ALL_PATHS, CHAT, STREAM, chunked, raw_engine, route, router_to, served
from tests.support.cases import in_one_test
from xinference.routing.table import Target

PATH = "/v1/chat/completions"
BODY = b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def no_stack_trace(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@in_one_test("body", [CHAT, STREAM], ids=["whole", "stream"])
@in_one_test("status", [204, 205, 301, 304, 399, 600, 999])
async def test_a_status_that_no_answer_has_is_a_bad_engine(status: int, body: dict[str, Any]) -> None:
    said = b"HTTP/1.1 %d Odd\r\n" % status + BODY
    async with raw_engine(said, said) as target, served(router_to(target)) as gateway:
        got, answer, _ = await gateway.post(PATH, body)
    assert (got, answer["error"]["code"]) == (502, "engine_error")
    assert str(status) in answer["detail"]


@pytest.mark.parametrize("status", [200, 201, 206, 299])
async def test_any_status_of_a_complete_answer_is_passed_on(status: int) -> None:
    async with raw_engine(b"HTTP/1.1 %d Fine\r\n" % status + BODY) as target, served(router_to(target)) as gateway:
        assert (await gateway.post(PATH, CHAT))[:2] == (status, {})


@pytest.mark.parametrize("status", [418, 450, 499, 520, 599])
async def test_any_status_of_an_error_is_passed_on(status: int) -> None:
    async with raw_engine(b"HTTP/1.1 %d Odd\r\n" % status + BODY) as target, served(router_to(target)) as gateway:
        assert (await gateway.post(PATH, CHAT))[0] == status


@in_one_test(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nno colon\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\n: no name\r\n" + BODY,
        b"HTTP/0.9 200 OK\r\n" + BODY,
        b"HTTP/3.0 200 OK\r\n" + BODY,
        b"ICY 200 OK\r\n" + BODY,
        b"HTTP/1.1 20 OK\r\n" + BODY,
        b"HTTP/1.1 2000 OK\r\n" + BODY,
        b"HTTP/1.1 abc OK\r\n" + BODY,
        b"{}",
        b"<html>hello</html>",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 4000,
        b"\x16\x03\x01\x00\x05hello",
        b"\x00" * 100,
    ],
    ids=range(15),
)
async def test_bytes_that_are_no_answer_are_a_bad_engine(said: bytes) -> None:
    async with raw_engine(said, said) as target, served(router_to(target)) as gateway:
        status, answer, _ = await gateway.post(PATH, CHAT)
    assert (status, answer["error"]["code"]) == (502, "engine_died")


ODD_JSON = (b"", b"{", b"[]", b"null", b'"text"', b'{"data": 1}', b'{"results": [1]}', b'{"data": [{"embedding": 7}]}')


@in_one_test("body", ODD_JSON)
@in_one_test(
    ("path", "asked"),
    [
        ("/v1/rerank", {"model": "m", "query": "a", "documents": ["b", "c"], "return_documents": True}),
        ("/v1/embeddings", {"model": "m", "input": "a", "dimensions": 8}),
        (PATH, CHAT | {"n": 2}),
    ],
    ids=["rerank", "embeddings", "two choices"],
)
async def test_an_answer_of_another_form_is_a_bad_engine(path: str, asked: dict[str, Any], body: bytes) -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with raw_engine(said) as target, served(router_of_all(target)) as gateway:
        status, answer, _ = await gateway.post(path, asked)
    if (status, path) == (200, "/v1/rerank"):
        assert answer["results"] == []
        return
    assert status in (502, 400), answer
    assert answer["error"]["code"] in ("engine_error", "unsupported_dimensions")


@pytest.mark.parametrize("event", [b"data: {\n\n", b"data: [1]\n\n", b"data: 7\n\n"])
async def test_an_event_of_another_form_ends_the_stream_with_an_error(event: bytes) -> None:
    for said in (chunked(event), chunked(b": first\n\n", event)):
        async with raw_engine(said) as target, served(router_of_all(target)) as gateway:
            status, text = await gateway.stream(PATH, STREAM | {"n": 2})
        assert status == 200
        assert text.endswith(b"\n\n") and b'"engine_error"' in text and b"[DONE]" not in text


def router_of_all(target: Target) -> Any:
    router = router_to()
    router.publish(route(target, engine="llama.cpp", paths=ALL_PATHS | {"/v1/rerank"}))
    return router
