"""Embedding and rerank families serve their own routes, and say so on the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.home import Home
from xinference.client import Client

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home], tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The tiny model in the place of an embedding and of a rerank model: its vectors mean little, but are vectors."""
    home = make_home()
    home.serve()
    folder = tmp_path_factory.mktemp("tiny")
    # The numbers of the poolings are llama.cpp's: 1 is the mean, 4 a score.
    for name, pooling in (("bge-m3", 1), ("bge-reranker-v2-m3", 4)):
        gguf = write_gguf(HF, "Q8_0", folder / f"{name}.gguf", {"llama.pooling_type": pooling})
        launched = home.launch(model_name=name, model_format="ggufv2", model_path=str(gguf), n_ctx=600)
        assert launched.status_code == 200, launched.text
    return home


def post(home: Home, path: str, **body: Any) -> httpx2.Response:
    return httpx2.post(f"{home.url}{path}", json=body, timeout=60)


def test_an_embedding_family_gives_a_vector_for_each_input(home: Home) -> None:
    client = openai.OpenAI(base_url=f"{home.url}/v1", api_key="none", max_retries=0)
    answer = client.embeddings.create(model="bge-m3", input=["Hello!", "Goodbye."], encoding_format="float")
    assert [len(item.embedding) for item in answer.data] == [256, 256]
    assert answer.data[0].embedding != answer.data[1].embedding
    assert answer.usage.total_tokens > 0


def test_an_input_of_the_whole_context_is_embedded(home: Home) -> None:
    answer = post(home, "/v1/embeddings", model="bge-m3", input=[[100] * 600])
    assert answer.status_code == 200, answer.text


def test_an_input_of_all_trained_tokens_is_embedded_and_one_more_is_a_400(home: Home, tmp_path: Path) -> None:
    gguf = write_gguf(HF, "Q8_0", tmp_path / "tiny.gguf", {"llama.pooling_type": 1})
    fields = {"model_name": "bge-m3", "model_format": "ggufv2", "model_path": str(gguf), "model_uid": "whole"}
    launched = home.launch(**fields)
    assert launched.status_code == 200, launched.text
    context = home.instance("whole")["context_length"]
    assert context == 4096
    assert post(home, "/v1/embeddings", model="whole", input=[[100] * context]).status_code == 200
    over = post(home, "/v1/embeddings", model="whole", input=[[100] * (context + 1)])
    assert (over.status_code, over.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_rerank_family_scores_every_document(home: Home) -> None:
    answer = post(home, "/v1/rerank", model="bge-reranker-v2-m3", query="Hello!", documents=["Goodbye.", "Hello!"])
    assert answer.status_code == 200, answer.text
    assert sorted(result["index"] for result in answer.json()["results"]) == [0, 1]


@pytest.mark.parametrize("model", ["bge-m3", "bge-reranker-v2-m3"])
def test_a_chat_with_either_is_a_400_that_names_the_routes_there_are(home: Home, model: str) -> None:
    answer = post(home, "/v1/chat/completions", model=model, messages=[{"role": "user", "content": "Hello!"}])
    assert answer.status_code == 400
    assert "/v1/" in answer.json()["error"]["message"]


def test_the_clients_handles_embed_and_rank(home: Home) -> None:
    with Client(home.url) as client:
        embedded = client.get_model("bge-m3").create_embedding(["Hello!", "Goodbye."])
        assert [len(item["embedding"]) for item in embedded["data"]] == [256, 256]
        ranked = client.get_model("bge-reranker-v2-m3").rerank(["Goodbye.", "Hello!"], "Hello!")
        assert sorted(result["index"] for result in ranked["results"]) == [0, 1]
