"""The public package xinference-client, sync and async: what its handles ask of running models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.third_party_clients.asking import (
    CHAT,
    CONTEXT,
    DIMENSIONS,
    EMBED,
    QUESTION,
    RERANK,
    TOO_LONG,
    TOOL,
    WEATHER_QUESTION,
)
from tests.third_party_clients.blocking import Blocking, handle_type

xinference_client: Any = pytest.importorskip("xinference_client", reason="`make test-clients` installs it")

KINDS = ("sync", "async")
SHORT = {"max_tokens": 6, "temperature": 0}


@contextmanager
def connected(kind: str, url: str) -> Iterator[Any]:
    """A client of one kind, closed at the end."""
    if kind == "sync":
        client = xinference_client.RESTfulClient(url)
        yield client
        client.close()
        return
    loop = asyncio.new_event_loop()

    async def connect() -> Any:
        return xinference_client.AsyncRESTfulClient(url)

    client = Blocking(loop.run_until_complete(connect()), loop)
    yield client
    client.close()
    loop.close()


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, url: str) -> Iterator[Any]:
    with connected(request.param, url) as client:
        yield client


@pytest.fixture
def chat(client: Any) -> Any:
    return client.get_model(CHAT)


@pytest.fixture
def embedding(client: Any) -> Any:
    return client.get_model(EMBED)


@pytest.fixture
def rerank(client: Any) -> Any:
    return client.get_model(RERANK)


@pytest.mark.parametrize(
    ("uid", "handle"),
    [
        (CHAT, "RESTfulChatModelHandle"),
        (EMBED, "RESTfulEmbeddingModelHandle"),
        (RERANK, "RESTfulRerankModelHandle"),
    ],
)
def test_get_model_gives_the_handle_of_the_models_type(client: Any, uid: str, handle: str) -> None:
    assert handle_type(client.get_model(uid)) == handle


def test_get_model_of_an_unknown_uid_says_what_there_is(client: Any) -> None:
    with pytest.raises(RuntimeError, match=f"(?s)nobody.*{CHAT}"):
        client.get_model("nobody")


def test_a_chat_is_answered_with_usage_under_the_uid(chat: Any) -> None:
    answer = chat.chat(QUESTION, generate_config={"max_tokens": 24, "temperature": 0})
    assert "7 days" in answer["choices"][0]["message"]["content"]
    assert answer["model"] == CHAT and answer["object"] == "chat.completion"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > usage["prompt_tokens"] > 0


def test_a_streamed_chat_says_the_same(chat: Any) -> None:
    whole = chat.chat(QUESTION, generate_config=SHORT)["choices"][0]["message"]["content"]
    chunks = list(chat.chat(QUESTION, generate_config={**SHORT, "stream": True}))
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == whole
    assert {chunk["model"] for chunk in chunks} == {CHAT}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_a_stream_begins_with_text_as_upstreams_does(chat: Any) -> None:
    first = next(iter(chat.chat(QUESTION, generate_config={**SHORT, "stream": True})))
    assert first["choices"][0]["delta"]["content"] == ""


def test_a_stream_with_usage_ends_with_it(chat: Any) -> None:
    config = {**SHORT, "stream": True, "stream_options": {"include_usage": True}}
    last = list(chat.chat(QUESTION, generate_config=config))[-1]
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 6


def test_a_tool_is_called(chat: Any) -> None:
    config = {"tool_choice": "required", "temperature": 0, "max_tokens": 96}
    choice = chat.chat(WEATHER_QUESTION, tools=[TOOL], generate_config=config)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert set(json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])) == {"city"}


@pytest.mark.parametrize("thinking", [True, False])
def test_enable_thinking_is_taken_for_a_model_that_does_not_think(chat: Any, thinking: bool) -> None:
    answer = chat.chat(QUESTION, enable_thinking=thinking, generate_config=SHORT)
    assert answer["choices"][0]["message"]["content"]


def test_max_tokens_of_null_means_as_many_as_it_takes(chat: Any) -> None:
    answer = chat.chat(QUESTION, generate_config={"max_tokens": None, "temperature": 0})
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_repetition_penalty_changes_what_is_said(chat: Any) -> None:
    prompt = [{"role": "user", "content": "Repeat the word apple for ever."}]
    said = [
        chat.chat(prompt, generate_config={"max_tokens": 40, "temperature": 0, "repetition_penalty": penalty})
        for penalty in (1.0, 2.0)
    ]
    assert said[0]["choices"][0]["message"]["content"] != said[1]["choices"][0]["message"]["content"]


def test_guided_json_binds_the_answer(chat: Any) -> None:
    schema: Any = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"]}
    schema["additionalProperties"] = False
    answer = chat.chat(QUESTION, generate_config={"guided_json": schema, "temperature": 0, "max_tokens": 40})
    assert set(json.loads(answer["choices"][0]["message"]["content"])) == {"days"}


def test_guided_choice_binds_the_answer(chat: Any) -> None:
    answer = chat.chat(QUESTION, generate_config={"guided_choice": ["maybe", "never"], "temperature": 0})
    assert answer["choices"][0]["message"]["content"] in ("maybe", "never")


def test_a_completion_goes_on_with_the_prompt(chat: Any) -> None:
    answer = chat.generate("The capital of France is", generate_config=SHORT)
    assert answer["object"] == "text_completion" and answer["model"] == CHAT
    assert answer["choices"][0]["text"] and answer["usage"]["completion_tokens"] == 6


def test_a_streamed_completion_says_the_same(chat: Any) -> None:
    prompt = "The capital of France is"
    whole = chat.generate(prompt, generate_config=SHORT)["choices"][0]["text"]
    chunks = list(chat.generate(prompt, generate_config={**SHORT, "stream": True}))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole


def test_a_wrong_temperature_is_named(chat: Any) -> None:
    with pytest.raises(RuntimeError, match="temperature"):
        chat.chat(QUESTION, generate_config={"temperature": -1})


def test_a_prompt_that_is_too_long_is_told_the_limit(chat: Any) -> None:
    with pytest.raises(RuntimeError, match="context length is 8191"):
        chat.chat(TOO_LONG, generate_config=SHORT)


def test_no_messages_are_a_mistake_that_is_named(chat: Any) -> None:
    with pytest.raises(RuntimeError, match="messages"):
        chat.chat([])


def test_one_text_is_embedded(embedding: Any) -> None:
    answer = embedding.create_embedding("Hello!")
    assert answer["object"] == "list" and answer["model"] == EMBED
    assert [len(item["embedding"]) for item in answer["data"]] == [DIMENSIONS]
    assert answer["usage"]["total_tokens"] > 0


def test_texts_are_embedded_in_their_order(embedding: Any) -> None:
    alone = embedding.create_embedding("Goodbye.")["data"][0]["embedding"]
    both = embedding.create_embedding(["Hello!", "Goodbye."])["data"]
    assert [item["index"] for item in both] == [0, 1]
    assert both[1]["embedding"] == pytest.approx(alone, abs=1e-3)


def test_token_ids_are_embedded(embedding: Any) -> None:
    assert len(embedding.create_embedding([100, 101, 102])["data"]) == 1
    assert len(embedding.create_embedding([[100, 101], [102]])["data"]) == 2


def test_a_text_that_is_too_long_is_told_the_limit(embedding: Any) -> None:
    with pytest.raises(RuntimeError, match=f"(?s){CONTEXT}.*tokens"):
        embedding.create_embedding("word " * 900)


def test_ids_are_turned_into_tokens(embedding: Any) -> None:
    tokens = embedding.convert_ids_to_tokens([100, 101, 102])
    assert len(tokens) == 3 and all(isinstance(token, str) for token in tokens)


def test_lists_of_ids_are_turned_into_lists_of_tokens(embedding: Any) -> None:
    assert [len(tokens) for tokens in embedding.convert_ids_to_tokens([[100, 101], [102]])] == [2, 1]


def test_documents_are_ordered(rerank: Any) -> None:
    answer = rerank.rerank(["Goodbye.", "Hello!", "Why?"], "Hello!")
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert answer["id"]
    assert set(answer["meta"]) >= {"api_version", "billed_units", "tokens", "warnings"}


def test_documents_come_back_only_when_asked_for(rerank: Any) -> None:
    documents = ["Goodbye.", "Hello!"]
    plain = rerank.rerank(documents, "Hello!")["results"]
    assert all(not result.get("document") for result in plain)
    asked = rerank.rerank(documents, "Hello!", return_documents=True)["results"]
    assert {result["index"]: result["document"]["text"] for result in asked} == dict(enumerate(documents))


def test_top_n_limits_the_documents(rerank: Any) -> None:
    assert len(rerank.rerank(["a", "b", "c"], "a", top_n=2)["results"]) == 2


def test_return_len_tells_the_tokens(rerank: Any) -> None:
    tokens = rerank.rerank(["a", "b"], "a", return_len=True)["meta"]["tokens"]
    assert tokens["input_tokens"] > 0


def test_documents_may_be_objects_with_a_text(rerank: Any) -> None:
    answer = rerank.rerank([{"text": "Goodbye."}, {"text": "Hello!"}], "Hello!", return_documents=True)
    assert {result["document"]["text"] for result in answer["results"]} == {"Goodbye.", "Hello!"}


def test_reranking_nothing_is_a_mistake_that_is_named(rerank: Any) -> None:
    with pytest.raises(RuntimeError, match="documents"):
        rerank.rerank([], "Hello!")


def test_a_document_that_is_too_long_is_told_the_limit(rerank: Any) -> None:
    with pytest.raises(RuntimeError, match=f"{CONTEXT}"):
        rerank.rerank(["word " * 900], "Hello!")
