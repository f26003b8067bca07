"""Requests that the gateway splits: the texts of token ids, and the scores of pairs of texts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import HandMadeRouter, route, served, target
from tests.gateway.test_engine_answers import ask
from xinference.gateway.routes import DATA_PATHS
from xinference.gateway.split_requests import score_pairs
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check

RANKED = {
    "usage": {"prompt_tokens": 9, "total_tokens": 9},
    "results": [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": -1}],
}


def pairs(**fields: Any) -> tuple[list[str], list[str]]:
    request: Any = check(DATA_PATHS["/v1/score"].decoder, json.dumps({"model": "m", **fields}).encode())
    return score_pairs(request)


@pytest.mark.process
async def test_ids_are_turned_into_texts_in_the_form_of_the_question() -> None:
    body: dict[str, Any] = {"model": "m", "input": [5, 6, 5]}
    assert await ask("/v1/convert_ids_to_tokens", body, {"content": "x"}) == (200, ["x", "x", "x"])
    body["input"] = [[5], [6, 7]]
    assert await ask("/v1/convert_ids_to_tokens", body, {"prompt": "y"}) == (200, [["y"], ["y", "y"]])
    assert await ask("/v1/convert_ids_to_tokens", {**body, "input": [5]}, {"text": "z"}) == (200, ["z"])


@pytest.mark.process
async def test_scores_have_vllms_form_in_the_order_of_the_texts() -> None:
    status, answer = await ask("/v1/score", {"model": "m", "text_1": "q", "text_2": ["a", "b"]}, RANKED)
    assert status == 200 and answer["object"] == "list" and answer["model"] == "m" and answer["id"]
    assert answer["data"] == [
        {"index": 0, "object": "score", "score": -1.0},
        {"index": 1, "object": "score", "score": 0.5},
    ]
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}


@pytest.mark.process
async def test_pairs_with_the_same_query_are_one_request_of_the_engine() -> None:
    async with start_fake_engine(status=200, body=RANKED) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine), paths=frozenset({"/v1/rerank"})))
        async with served(router) as gateway:
            body = {"model": "m", "text_1": ["q", "r", "q", "r"], "text_2": ["a", "b", "c", "d"]}
            status, answer, _ = await gateway.post("/v1/score", body)
    assert status == 200 and [each["score"] for each in answer["data"]] == [-1.0, -1.0, 0.5, 0.5]
    assert answer["usage"]["total_tokens"] == 18


@pytest.mark.process
async def test_a_score_of_an_answer_in_another_form_is_the_engines_fault() -> None:
    status, answer = await ask("/v1/score", {"model": "m", "text_1": "q", "text_2": "a"}, {"results": [{"index": 7}]})
    assert (status, answer["error"]["code"]) == (502, "engine_error")


@pytest.mark.parametrize(
    "fields",
    [
        {"text_1": "q", "text_2": ["a", "b"]},
        {"text_1": ["q"], "text_2": ["a", {"text": "b"}]},
        {"data_1": "q", "data_2": ["a", "b"]},
        {"queries": "q", "documents": ["a", "b"]},
        {"queries": ["q", "q"], "items": ["a", "b"]},
    ],
)
def test_each_of_vllms_forms_is_read(fields: dict[str, Any]) -> None:
    assert pairs(**fields) == (["q", "q"], ["a", "b"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text_1": "q"}, "text_1 and text_2 are required"),
        ({"text_1": ["q", "r"], "text_2": ["a", "b", "c"]}, "text_1 has 2 texts and text_2 3"),
        ({"text_1": "q", "text_2": [{"image": "data:"}]}, r"text_2\[0\] has no text"),
        ({"text_1": [], "text_2": "a"}, "text_1"),
    ],
)
def test_texts_that_cannot_be_paired_are_refused_by_name(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal, match=said):
        pairs(**fields)
