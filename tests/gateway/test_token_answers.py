"""Texts to tokenize, in the forms of llama.cpp and of vLLM, on each engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.test_engine_answers import ask
from tests.gateway.test_engine_requests import said
from tests.support.cases import in_one_test
from xinference.gateway.token_answers import complete_text, complete_tokens
from xinference.protocol.errors import Refusal

MESSAGES = [{"role": "user", "content": "hi"}]


@in_one_test("path", ["/tokenize", "/v1/tokenize"])
@in_one_test(
    ("engine", "fields", "sent"),
    [
        ("llama.cpp", {"content": "a"}, {"content": "a"}),
        ("llama.cpp", {"content": ["a", 5], "add_special": True}, {"content": ["a", 5], "add_special": True}),
        ("llama.cpp", {"prompt": "a"}, {"content": "a", "add_special": True}),
        ("llama.cpp", {"prompt": "a", "add_special_tokens": False}, {"content": "a", "add_special": False}),
        (
            "llama.cpp",
            {"prompt": "a", "return_token_strs": True},
            {"content": "a", "add_special": True, "with_pieces": True},
        ),
        ("vLLM", {"prompt": "a"}, {"prompt": "a"}),
        ("vLLM", {"messages": MESSAGES}, {"messages": MESSAGES}),
        ("vLLM", {"content": "a"}, {"prompt": "a", "add_special_tokens": False}),
        (
            "vLLM",
            {"content": "a", "add_special": True, "with_pieces": True},
            {"prompt": "a", "add_special_tokens": True, "return_token_strs": True},
        ),
        ("SGLang", {"content": "a"}, {"prompt": "a", "add_special_tokens": False}),
        ("Transformers", {"content": "a"}, {"content": "a"}),
        ("Transformers", {"messages": MESSAGES}, {"messages": MESSAGES}),
    ],
)
def test_each_engine_gets_the_text_in_its_form(
    path: str, engine: str, fields: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert said(engine, path, **fields) == {"model": "m"} | sent


@in_one_test(
    ("engine", "fields", "name"),
    [
        ("llama.cpp", {}, "prompt"),
        ("vLLM", {}, "prompt"),
        ("Transformers", {}, "prompt"),
        ("llama.cpp", {"messages": MESSAGES}, "messages"),
        ("SGLang", {"messages": MESSAGES}, "messages"),
        ("SGLang", {"prompt": "a", "return_token_strs": True}, "return_token_strs"),
        ("Transformers", {"prompt": "a", "return_token_strs": True}, "return_token_strs"),
        ("vLLM", {"content": ["a", 5]}, "content"),
    ],
)
def test_what_an_engine_cannot_convert_is_refused_by_name(engine: str, fields: dict[str, Any], name: str) -> None:
    with pytest.raises(Refusal) as refused:
        said(engine, "/v1/tokenize", **fields)
    assert (refused.value.status, refused.value.param) == (400, name)


@pytest.mark.process
async def test_the_answer_has_the_fields_of_both_forms() -> None:
    status, answer = await ask("/v1/tokenize", {"model": "m", "prompt": "a"}, {"tokens": [1, 2]})
    assert status == 200 and answer["tokens"] == [1, 2] and answer["count"] == 2 and answer["max_model_len"] > 0
    for engines in ({"content": "x"}, {"prompt": "x"}, {"text": "x"}):
        status, answer = await ask("/v1/detokenize", {"model": "m", "tokens": [1]}, engines)
        assert (status, answer["content"], answer["prompt"]) == (200, "x", "x")


def test_an_engines_own_count_stays() -> None:
    own = {"tokens": [1], "count": 1, "max_model_len": 5}
    assert json.loads(complete_tokens(json.dumps(own).encode(), context_length=4, has_strings=False)) == own


def test_texts_of_tokens_come_in_the_form_of_the_request() -> None:
    pieces = json.dumps({"tokens": [{"id": 1, "piece": "a"}, {"id": 2, "piece": [195, 164]}]}).encode()
    answer = json.loads(complete_tokens(pieces, context_length=None, has_strings=True))
    assert answer == {"tokens": [1, 2], "token_strs": ["a", "ä"], "count": 2}
    kept = json.loads(complete_tokens(pieces, context_length=None, has_strings=False))
    assert kept["tokens"][0] == {"id": 1, "piece": "a"} and kept["count"] == 2


def test_an_answer_without_a_text_is_no_answer() -> None:
    with pytest.raises(LookupError):
        complete_text(b"{}")
