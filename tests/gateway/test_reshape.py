from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import ALL_PATHS, HandMadeRouter, call, gateway_of, route, served, target
from xinference.gateway.reshape import fill_deltas

PATHS = ALL_PATHS | {"/v1/rerank", "/detokenize"}
RANKED = {
    "model": "m",
    "usage": {"prompt_tokens": 9, "total_tokens": 9},
    "results": [{"index": 1, "relevance_score": -0.5}, {"index": 0, "relevance_score": 0.25}],
}
ASKED = {"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": None, "kwargs": "{}"}


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
@pytest.mark.parametrize("vector", [[0.5, 1.0], base64.b64encode(bytes(8)).decode()])
async def test_dimensions_that_llama_cpp_does_not_give_are_a_400_that_names_those_it_gives(vector: Any) -> None:
    says = {"data": [{"embedding": vector}]}
    right = await ask("/v1/embeddings", {"model": "m", "input": "a", "dimensions": 2}, says)
    assert right == (200, says)
    status, answer = await ask("/v1/embeddings", {"model": "m", "input": "a", "dimensions": 3}, says)
    assert (status, answer["error"]["param"]) == (400, "dimensions") and "2 numbers" in answer["detail"]


@pytest.mark.process
async def test_ids_are_turned_into_texts_in_the_form_of_the_question() -> None:
    body: dict[str, Any] = {"model": "m", "input": [5, 6, 5]}
    assert await ask("/v1/convert_ids_to_tokens", body, {"content": "x"}) == (200, ["x", "x", "x"])
    body["input"] = [[5], [6, 7]]
    assert await ask("/v1/convert_ids_to_tokens", body, {"prompt": "y"}) == (200, [["y"], ["y", "y"]])


def test_only_a_delta_without_text_is_filled() -> None:
    begin = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    said = json.dumps({"choices": [{"delta": {"content": '"delta":{} and more'}}]}, separators=(",", ":")).encode()
    filled = fill_deltas(begin + end + said)
    assert filled.count(b'"content":""') == 2 and filled.endswith(said)


async def listing(path: str, **options: Any) -> tuple[int, Any]:
    router = HandMadeRouter()
    router.publish(route(uid="one"), route(uid="vectors", paths=frozenset({"/v1/embeddings"})))
    async with gateway_of(router) as gateway:
        answer = await call(gateway, path, method="GET", **options)
    return answer.status, answer.json


async def test_anthropics_listing_has_the_models_that_answer_messages() -> None:
    status, answer = await listing("/anthropic/v1/models")
    assert status == 200 and [model["id"] for model in answer["data"]] == ["one"]
    assert (answer["first_id"], answer["last_id"], answer["has_more"]) == ("one", "one", False)
    assert answer["data"][0]["type"] == "model"


async def test_one_of_anthropics_models_is_found_or_not_in_anthropics_form() -> None:
    assert (await listing("/anthropic/v1/models/one"))[1]["id"] == "one"
    status, answer = await listing("/anthropic/v1/models/vectors")
    assert status == 404 and answer["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(("given", "named"), [("", "required"), ("newest", "newest")])
async def test_messages_without_a_known_version_are_a_400_that_names_it(given: str, named: str) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).encode()
    async with gateway_of(HandMadeRouter()) as gateway:
        answer = await call(gateway, "/v1/messages", body, headers={"anthropic-version": given})
    assert answer.status == 400 and named in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/chat/completions", {"type": "image_url", "image_url": {"url": "http://10.0.0.1/a.png"}}),
        ("/v1/chat/completions", {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
        ("/v1/chat/completions", {"type": "audio_url", "audio_url": {"url": "https://a.b/c"}}),
        ("/v1/messages", {"type": "image", "source": {"type": "url", "url": "https://a.b/c"}}),
        ("/v1/responses", {"type": "input_image", "image_url": "https://a.b/c"}),
    ],
)
async def test_media_is_never_fetched_from_an_address(path: str, message: dict[str, Any]) -> None:
    field = "input" if path == "/v1/responses" else "messages"
    body = json.dumps({"model": "m", "max_tokens": 1, field: [{"role": "user", "content": [message]}]}).encode()
    async with gateway_of(HandMadeRouter()) as gateway:
        answer = await call(gateway, path, body)
    assert answer.status == 400 and "data: URI" in answer.json["error"]["message"]


async def test_the_wrong_route_for_a_model_names_the_right_one_and_who_serves_it() -> None:
    router = HandMadeRouter()
    router.publish(route(uid="talks"), route(uid="vectors", paths=frozenset({"/v1/embeddings"})))
    body = json.dumps({"model": "vectors", "messages": [{"role": "user", "content": "x"}]}).encode()
    async with gateway_of(router) as gateway:
        answer = await call(gateway, "/v1/chat/completions", body)
    message = answer.json["error"]["message"]
    assert answer.status == 400 and "/v1/embeddings" in message and "talks" in message
