"""Requests with many inputs: which are divided, what their parts are, and what their joined answer is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.harness import route
from tests.support.cases import in_one_test
from xinference.error_codes import Code
from xinference.gateway.divided_requests import Division, divide, join, parts
from xinference.gateway.engine_requests import EngineCall
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.protocol.requests import Embeddings, Request

EMBEDDINGS, RERANK, COMPLETIONS = "/v1/embeddings", "/v1/rerank", "/v1/completions"


def not_prepared(request: Request, body: bytes) -> EngineCall:
    raise AssertionError


def division(path: str, slots: int = 1, engine: str = "llama.cpp", **fields: Any) -> Division | None:
    body = json.dumps({"model": "m", **fields}).encode()
    request = check(DATA_PATHS[path].decoder, body)
    return divide(request, body, route(engine=engine, slots=slots), not_prepared)


def divided(path: str, **fields: Any) -> Division:
    made = division(path, **fields)
    assert made is not None
    return made


@in_one_test(
    ("path", "fields"),
    [
        (EMBEDDINGS, {"input": ["a"] * 8}),
        (EMBEDDINGS, {"input": "a"}),
        (EMBEDDINGS, {"input": [1] * 100}),  # the ids of one input's tokens
        (EMBEDDINGS, {"input": ["a"] * 100, "engine": "vLLM"}),
        (EMBEDDINGS, {"input": ["a"] * 100, "engine": "Transformers"}),
        (EMBEDDINGS, {"input": ["a"] * 40, "slots": 10}),
        (RERANK, {"query": "q", "documents": ["a"] * 8}),
        (COMPLETIONS, {"prompt": ["a"] * 8}),
        (COMPLETIONS, {"prompt": [1] * 100}),
        (COMPLETIONS, {"prompt": ["a"] * 100, "engine": "vLLM"}),
        (COMPLETIONS, {"prompt": ["a"] * 16, "engine": "Transformers", "slots": 4}),
    ],
)
def test_a_request_with_few_inputs_is_sent_as_it_is(path: str, fields: dict[str, Any]) -> None:
    assert division(path, **fields) is None


@pytest.mark.parametrize("inputs", [["a"] * 20, [[1, 2]] * 20, [{"text": "a"}] * 20])
def test_the_parts_have_all_inputs_once_and_every_other_field(inputs: list[Any]) -> None:
    numbered = [[*each[:1], n] if isinstance(each, list) else each for n, each in enumerate(inputs)]
    made = [(request, json.loads(body)) for request, body in parts(divided(EMBEDDINGS, input=numbered, dimensions=3))]
    assert [len(body["input"]) for _, body in made] == [8, 8, 4]
    assert [one for _, body in made for one in body["input"]] == numbered
    assert all(body["model"] == "m" and body["dimensions"] == 3 for _, body in made)
    assert [len(request.input) for request, _ in made if isinstance(request, Embeddings)] == [8, 8, 4]


def test_several_answers_to_each_prompt_make_the_parts_smaller() -> None:
    made = parts(divided(COMPLETIONS, prompt=["a"] * 9, n=4))
    assert [len(json.loads(body)["prompt"]) for _, body in made] == [2, 2, 2, 2, 1]


def test_many_prompts_go_to_transformers_in_parts_too() -> None:
    made = parts(divided(COMPLETIONS, prompt=["a"] * 20, engine="Transformers", slots=3))
    assert [len(json.loads(body)["prompt"]) for _, body in made] == [12, 8]


def test_a_stream_of_more_than_one_part_is_refused_by_name() -> None:
    with pytest.raises(Refusal, match="at most 8 prompts, not 9") as refused:
        division(COMPLETIONS, prompt=["a"] * 9, stream=True)
    assert (refused.value.code, refused.value.param) == (Code.UNSUPPORTED_FIELD, "prompt")


def test_vectors_are_numbered_through_and_their_bytes_unchanged() -> None:
    made = divided(EMBEDDINGS, input=["a"] * 10)
    answers = [
        b'{"object":"list","model":"m","data":[%b],"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
        % (b",".join(b'{"index":%d,"embedding":[0.10, 1e-3]}' % n for n in reversed(range(count))), count, count)
        for count in (8, 2)
    ]
    joined = join(made, answers)
    assert joined.count(b"[0.10, 1e-3]") == 10
    answer = json.loads(joined)
    assert sorted(each["index"] for each in answer["data"]) == list(range(10))
    assert answer["usage"] == {"prompt_tokens": 10, "total_tokens": 10} and answer["model"] == "m"


@pytest.mark.parametrize(("entries", "score"), [("results", "relevance_score"), (None, "score")])
def test_documents_are_ranked_over_all_parts(entries: str | None, score: str) -> None:
    made = divided(RERANK, query="q", documents=["a"] * 10, top_n=3)
    assert all("top_n" not in json.loads(body) for _, body in parts(made))
    lists = [[{"index": n, score: n / 10} for n in range(8)], [{"index": 0, score: 0.65}, {"index": 1, score: -2}]]
    answers = [json.dumps({entries: each, "usage": {"total_tokens": 4}} if entries else each) for each in lists]
    answer = json.loads(join(made, [each.encode() for each in answers]))
    ranked = answer[entries] if entries else answer
    assert [(each["index"], each[score]) for each in ranked] == [(7, 0.7), (8, 0.65), (6, 0.6)]
    assert not entries or answer["usage"] == {"total_tokens": 8}


def test_the_answers_of_completions_follow_their_prompts() -> None:
    made = divided(COMPLETIONS, prompt=["a"] * 5, n=2)
    sizes = [len(json.loads(body)["prompt"]) * 2 for _, body in parts(made)]
    answers = [
        json.dumps(
            {
                "id": f"c{n}",
                "choices": [{"index": i, "text": f"{n} {i}"} for i in range(size)],
                "usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": n}},
            }
        ).encode()
        for n, size in enumerate(sizes)
    ]
    answer = json.loads(join(made, answers))
    assert [each["index"] for each in answer["choices"]] == list(range(10))
    assert answer["id"] == "c0"
    assert answer["usage"] == {"prompt_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
