"""The requests of RAGFlow and Dify, in the form in which their own code sends them."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from tests.third_party_clients.asking import CHAT, DIMENSIONS, EMBED, RERANK

TEXTS = ["Paris is in France.", "The cat sleeps."]


def post(url: str, path: str, **body: Any) -> dict[str, Any]:
    answer = httpx2.post(f"{url}{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.json()
    return read


def test_ragflow_ranks_with_switches_as_texts(url: str) -> None:
    # Its older versions read the tokens at the top of the answer, its newer ones the usage.
    switches = {"return_documents": "true", "return_len": "true"}
    answer = post(url, "/v1/rerank", model=RERANK, query="Where is Paris?", documents=TEXTS, **switches)
    scores = [0.0] * len(TEXTS)
    for result in answer["results"]:
        scores[result["index"]] = result["relevance_score"]
    assert len(set(scores)) == 2 and answer["usage"]["total_tokens"] > 0
    assert {result["document"]["text"] for result in answer["results"]} == set(TEXTS)
    assert answer["tokens"]["input_tokens"] > 0 and answer["tokens"] == answer["meta"]["tokens"]


def test_ragflow_embeds_by_openais_client_with_fields_of_its_own(url: str) -> None:
    with openai.OpenAI(api_key="x", base_url=f"{url}/v1", max_retries=0) as client:
        embedded = client.embeddings.create(input=TEXTS, model=EMBED, extra_body={"drop_params": True})
        assert [len(each.embedding) for each in embedded.data] == [DIMENSIONS] * 2
        assert embedded.usage.total_tokens > 0


@pytest.mark.parametrize("uid", [CHAT, EMBED, RERANK])
def test_dify_reads_what_a_model_can_do(url: str, uid: str) -> None:
    # It asks for the model by its uid, and with the path of a uid that it quotes itself.
    described = httpx2.get(f"{url}/v1/models/{uid}", timeout=10).json()
    assert described["model_type"] in ("LLM", "embedding", "rerank")
    assert isinstance(described["model_ability"], list) and isinstance(described["context_length"], int)
    assert {"model_format", "model_family", "model_name", "address"} <= described.keys()


def test_dify_chats_by_openais_client_with_its_own_fields(url: str) -> None:
    with openai.OpenAI(
        api_key="abc", base_url=f"{url}/v1", max_retries=0, default_headers={"X-Dify-Source": "dify"}
    ) as client:
        stream = client.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": "ping"}],
            stream=True,
            user="abc-123",
            max_tokens=16,
            temperature=0.01,
            stop=[],
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0


def test_dify_ranks_as_cohere_and_jina_do(url: str) -> None:
    for path in ("/v1/rerank", "/v2/rerank", "/v1/reranking"):
        answer = post(url, path, model=RERANK, query="Paris", documents=TEXTS, top_n=1, return_documents=True)
        (result,) = answer["results"]
        assert result["document"]["text"] == TEXTS[result["index"]] and answer["model"] == RERANK, path


def test_the_scores_of_vllms_form_are_those_of_the_ranking(url: str) -> None:
    ranked = post(url, "/v1/rerank", model=RERANK, query="Paris", documents=TEXTS)
    scored = post(url, "/v1/score", model=RERANK, text_1="Paris", text_2=TEXTS)
    by_index = {result["index"]: result["relevance_score"] for result in ranked["results"]}
    assert {each["index"]: each["score"] for each in scored["data"]} == pytest.approx(by_index, abs=1e-3)


def test_tokens_are_counted_and_turned_back(url: str) -> None:
    tokens = post(url, "/v1/tokenize", model=CHAT, prompt="Hello, world!", add_special_tokens=False)
    assert tokens["count"] == len(tokens["tokens"]) > 1 and tokens["max_model_len"] > 100
    assert post(url, "/v1/detokenize", model=CHAT, tokens=tokens["tokens"])["prompt"] == "Hello, world!"
    named = post(url, "/v1/tokenize", model=CHAT, prompt="Hello!", add_special_tokens=False, return_token_strs=True)
    assert "".join(named["token_strs"]).strip() == "Hello!"
