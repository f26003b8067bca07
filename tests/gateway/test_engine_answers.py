from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import ALL_PATHS, HandMadeRouter, route, served, target
from xinference.engines.dialect import UNCHANGED, Exchange
from xinference.gateway.engine_answers import events_rewrite, fill_deltas, read_error
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.errors import Refusal, anthropic_error, openai_error
from xinference.protocol.request_check import check

PATHS = ALL_PATHS | {"/v1/rerank", "/tokenize", "/detokenize"}
RANKED = {
    "model": "m",
    "usage": {"prompt_tokens": 9, "total_tokens": 9},
    "results": [{"index": 1, "relevance_score": -0.5}, {"index": 0, "relevance_score": 0.25}],
}
ASKED = {"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": None, "kwargs": "{}"}


def read(status: int, answer: Any, **of: Any) -> Refusal:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return read_error(route(**of), status, body, "messages")


def test_an_error_is_explained_by_the_dialect_of_its_engine_and_no_other() -> None:
    error = {"error": {"message": "image input is not supported", "code": 500}}
    assert read(500, error, engine="llama.cpp").code == "unsupported_content"
    for engine in ("vLLM", ""):
        refusal = read(500, error, engine=engine)
        assert (refusal.status, refusal.code, refusal.cause) == (500, "", "image input is not supported")


def test_a_number_as_code_becomes_that_of_the_status_and_a_name_stays() -> None:
    assert read(400, {"error": {"message": "no", "code": 400}}).code == "invalid_request"
    assert read(400, {"error": {"message": "no", "code": None}}).code == "invalid_request"
    assert read(422, {"error": {"message": "no", "code": 422}}).code == ""
    assert read(400, {"error": {"message": "no", "code": "bad_grammar", "param": "grammar"}}).code == "bad_grammar"
    assert json.loads(openai_error(400, "no", ""))["error"]["code"] is None


def test_our_own_key_refused_is_our_fault() -> None:
    assert read(401, {"error": {"message": "Invalid API Key", "code": 401}}).status == 502


def test_a_loading_engine_stays_503_with_retry_after() -> None:
    refusal = read(503, {"error": {"code": 503, "message": "Loading model"}}, retry_after=9)
    assert (refusal.status, refusal.code) == (503, "model_loading")
    assert refusal.headers == ((b"retry-after", b"9"),)


def test_other_forms_of_errors_give_their_text() -> None:
    assert read(400, {"detail": "no such template"}).cause == "no such template"
    assert "loc" in read(422, {"detail": [{"loc": ["body"]}]}).cause
    assert read(400, {"object": "error", "message": "flat"}).cause == "flat"
    assert read(400, {"error": "text"}).cause == "text"
    assert read(500, b"<html>broken").cause == "<html>broken"
    assert read(500, b"").cause == "The engine answered with status 500."
    assert read(500, b"[" * 60_000).status == 500


def test_the_types_follow_the_status() -> None:
    assert json.loads(openai_error(404, "x", "c"))["error"]["type"] == "invalid_request_error"
    assert json.loads(openai_error(502, "x", "c"))["error"]["type"] == "server_error"
    anthropic = {
        400: "invalid_request_error",
        404: "not_found_error",
        413: "request_too_large",
        502: "api_error",
        503: "overloaded_error",
    }
    for status, kind in anthropic.items():
        assert json.loads(anthropic_error(status, "x")) == {"type": "error", "error": {"type": kind, "message": "x"}}


async def ask(path: str, body: dict[str, Any], engine_says: Any) -> tuple[int, Any]:
    async with start_fake_engine(status=200, body=engine_says) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), paths=PATHS))
        async with served(router) as gateway:
            status, answer, _ = await gateway.post(path, body)
    return status, answer


@pytest.mark.process
async def test_a_rerank_answer_has_xinferences_form_best_first() -> None:
    status, answer = await ask("/v1/rerank", ASKED, RANKED)
    assert status == 200 and answer["id"] and answer["model"] == "m"
    assert answer["results"] == [{"index": 0, "relevance_score": 0.25}, {"index": 1, "relevance_score": -0.5}]
    assert answer["meta"] == {"api_version": None, "billed_units": None, "tokens": None, "warnings": None}


@pytest.mark.process
async def test_documents_and_their_length_come_with_the_answer_if_asked_for() -> None:
    _, answer = await ask("/v1/rerank", ASKED | {"return_documents": True, "return_len": True}, RANKED)
    assert [result["document"] for result in answer["results"]] == [{"text": "a"}, {"text": "b"}]
    assert answer["meta"]["tokens"] == {"input_tokens": 9, "output_tokens": 0}


@pytest.mark.process
@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/v1/reranking"])
@pytest.mark.parametrize(("on", "off"), [("true", "false"), (1, 0), ("1", "0"), ("yes", "No"), ("True", "off")])
async def test_a_switch_has_each_form_that_other_servers_take(path: str, on: Any, off: Any) -> None:
    # RAGFlow sends "true" for both, and reads the score of each index.
    status, answer = await ask(path, ASKED | {"return_documents": on, "return_len": on}, RANKED)
    assert status == 200 and [result["index"] for result in answer["results"]] == [0, 1]
    assert all("document" in result for result in answer["results"]) and answer["meta"]["tokens"]
    _, answer = await ask(path, ASKED | {"return_documents": off, "return_len": off}, RANKED)
    assert not any("document" in result for result in answer["results"]) and answer["meta"]["tokens"] is None


def test_only_a_delta_without_text_is_filled() -> None:
    begin = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    said = json.dumps({"choices": [{"delta": {"content": '"delta":{} and more'}}]}, separators=(",", ":")).encode()
    filled = fill_deltas(begin + end + said)
    assert filled.count(b'"content":""') == 2 and filled.endswith(said)


def test_a_chats_stream_is_filled_before_the_engines_own_rewrite() -> None:
    body = b'{"model": "m", "stream": true, "messages": [{"role": "user"}]}'
    chat = check(DATA_PATHS["/v1/chat/completions"].decoder, body)
    assert events_rewrite(chat, UNCHANGED) is fill_deltas
    both = events_rewrite(chat, Exchange(events=lambda chunk: chunk + b"!"))
    assert both is not None and both(b'{"delta":{}}') == b'{"delta":{"content":""}}!'
