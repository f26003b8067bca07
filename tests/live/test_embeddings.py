"""Embeddings and scores on the Transformers server: the real all-MiniLM-L6-v2, and tiny models of every kind."""

from __future__ import annotations

import base64
import json
import math
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.formats.gguf_model import write_gguf
from tests.live.transformers_engine import HF, UID, RunningEngine, engine, python_of_environment
from tests.support.built_environments import require_environment
from tests.support.home import Home
from tests.support.polling import until
from xinference.client import Client
from xinference.engines.transformers.engine import PROGRAM

pytestmark = pytest.mark.timeout(600)
MINILM = "all-MiniLM-L6-v2"
#: Vectors of sentence-transformers itself.
REFERENCE = json.loads((HF.parent / "all-minilm-l6-v2.json").read_text(encoding="utf-8"))
MODELS = Path(__file__).with_name("pooled_models.py")
QUERY, DOCUMENTS = "what eats grass", ["a llama eats grass", "the wool is warm", "grass", "unknown words only"]


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return product / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))


def vectors(running: RunningEngine, texts: Any, **fields: Any) -> list[list[float]]:
    answer = running.post("/v1/embeddings", model=UID, input=texts, **fields)
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [item["embedding"] for item in data]


@pytest.fixture(scope="module")
def real(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    log = tmp_path_factory.mktemp("engine") / "log"
    with engine(log, model_type="embedding", model_path=str(minilm), context_length=256) as running:
        yield running


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny models, with the answers that plain transformers gives."""
    folder = tmp_path_factory.mktemp("tiny-models")
    words = [str(word) for word in (python_of_environment(), "-I", MODELS, folder, PROGRAM)]
    made = subprocess.run(words, timeout=500, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder


# -- the real model ---------------------------------------------------------------------------------------------------


def test_its_vectors_are_those_of_sentence_transformers(real: RunningEngine) -> None:
    made = vectors(real, REFERENCE["texts"])
    for own, reference in zip(made, REFERENCE["vectors"], strict=True):
        assert cosine(own, reference) > 0.9999
        assert max(abs(a - b) for a, b in zip(own, reference, strict=True)) < 1e-4
        assert math.isclose(sum(a * a for a in own), 1, abs_tol=1e-5)


def test_a_text_has_the_same_vector_alone_and_among_others(real: RunningEngine) -> None:
    texts = [" ".join(["word"] * (1 + n * 7 % 41)) for n in range(32)]
    together = vectors(real, texts)
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda text: vectors(real, text)[0], texts))
    assert min(map(cosine, together, alone)) > 0.99999


def test_texts_of_all_lengths_in_one_request_have_the_vectors_that_they_have_alone(real: RunningEngine) -> None:
    """The shortest and the longest input, and some with the same tokens at other positions."""
    texts = ["", "word", " ".join(["word"] * 254), "word hill", "hill word", " ".join(["hill", *["word"] * 100])]
    together = vectors(real, texts)
    assert min(map(cosine, together, (vectors(real, text)[0] for text in texts))) > 0.99999
    assert cosine(together[3], together[4]) < 0.99999


def test_every_form_of_input_and_answer(real: RunningEngine) -> None:
    text = REFERENCE["texts"][0]
    whole = vectors(real, text)[0]
    tokens = real.post("/tokenize", model=UID, prompt=text).json()["tokens"]
    assert cosine(vectors(real, tokens)[0], whole) > 0.99999
    assert len(vectors(real, [tokens, tokens])) == 2
    packed = real.post("/v1/embeddings", model=UID, input=[text], encoding_format="base64").json()["data"][0]
    assert list(struct.unpack("<384f", base64.b64decode(packed["embedding"]))) == pytest.approx(whole, abs=1e-6)
    short = vectors(real, text, dimensions=8)[0]
    assert len(short) == 8 and cosine(short, whole[:8]) > 0.99999
    assert math.isclose(sum(a * a for a in short), 1, abs_tol=1e-5)


def test_the_longest_input_is_embedded_and_one_token_more_is_a_400_or_is_truncated(real: RunningEngine) -> None:
    full, over = " ".join(["word"] * 254), " ".join(["word"] * 255)
    answer = real.post("/v1/embeddings", model=UID, input=full).json()
    assert answer["usage"] == {"prompt_tokens": 256, "total_tokens": 256}
    error = real.post("/v1/embeddings", model=UID, input=["short", over]).json()["error"]
    assert (error["type"], error["n_prompt_tokens"], error["n_ctx"]) == ("exceed_context_size_error", 257, 256)
    truncated = vectors(real, over, truncate_prompt_tokens=-1)[0]
    assert cosine(truncated, answer["data"][0]["embedding"]) > 0.99999


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"model": "other"}, 404, "other"),
        ({"input": ["text", [1]]}, 400, "input"),
        ({"input": [999999]}, 400, "999999"),
        ({"input": []}, 400, "input"),
        ({"dimensions": 385}, 400, "384"),
        ({"truncate_prompt_tokens": 1}, 400, "at least 3 tokens"),
        ({"prompt_name": "odd"}, 400, "odd"),
        ({"return_sparse": True}, 400, "sparse_linear.safetensors"),
    ],
)
def test_bad_input_is_refused_in_openais_envelope(
    real: RunningEngine, fields: dict[str, Any], status: int, said: str
) -> None:
    answer = real.post("/v1/embeddings", **{"model": UID, "input": "x"} | fields)
    assert answer.status_code == status and said in answer.json()["error"]["message"]
    assert real.post("/v1/chat/completions", model=UID, messages=[]).status_code == 404


def test_a_client_that_leaves_frees_its_inputs_and_progress_is_shown(real: RunningEngine) -> None:
    body = {"model": UID, "input": [" ".join(["word"] * 250)] * 400}
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(f"{real.url}/v1/embeddings", json=body, headers=real.headers, timeout=1)
    until("nothing is computed any more", lambda: real.metric("running") + real.metric("waiting") == 0, 30)
    assert httpx2.get(f"{real.url}/progress", headers=real.headers, timeout=60).status_code == 200
    assert len(vectors(real, "hello")) == 1


# -- tiny models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["mean", "cls", "last", "max", "modules", "mixed", "roberta", "roberta_padding", "ranker", "raw_ranker"],
)
def test_each_pooling_module_and_score_is_that_of_plain_transformers(tiny: Path, name: str) -> None:
    made, expected = (json.loads((tiny / file).read_text())[name] for file in ("made.json", "expected.json"))
    rows = expected if isinstance(expected[0], list) else [expected]
    for own, reference in zip(made if isinstance(made[0], list) else [made], rows, strict=True):
        assert own == pytest.approx(reference, abs=1e-5)


def test_the_weights_of_tokens_are_those_of_plain_transformers(tiny: Path) -> None:
    made, expected = (json.loads((tiny / file).read_text())["sparse"] for file in ("made.json", "expected.json"))
    assert any(expected)
    for own, reference in zip(made, expected, strict=True):
        assert own == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pickle", "only safetensors"),
        ("program", "not executed here"),
        ("no head", "no head that ranks"),
        ("two labels", "has 2 labels"),
    ],
)
def test_a_folder_that_cannot_be_served_says_why(tiny: Path, name: str, said: str) -> None:
    assert said in json.loads((tiny / "refused.json").read_text())[name]


def test_a_cross_encoder_ranks_and_its_prompts_have_an_end(tiny: Path, tmp_path: Path) -> None:
    params = {"model_type": "rerank", "model_path": str(tiny / "raw_ranker"), "context_length": 24}
    with engine(tmp_path / "log", **params) as running:
        answer = running.post("/v1/rerank", model=UID, query=QUERY, documents=DOCUMENTS).json()
        first = running.post("/rerank", model=UID, query=QUERY, documents=DOCUMENTS, top_n=1).json()
        long = running.post("/v1/rerank", model=UID, query=QUERY, documents=["a " * 30])
        truncated = running.post("/v1/rerank", model=UID, query=QUERY, documents=["a " * 30], truncate_prompt_tokens=-1)
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True) and answer["usage"]["total_tokens"] > 0
    assert first["results"] == answer["results"][:1]
    assert long.json()["error"]["type"] == "exceed_context_size_error"
    assert truncated.json()["usage"]["total_tokens"] == 24


# -- through the server -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home], minilm: Path) -> Iterator[Home]:
    home = make_home()
    require_environment(home.path, "Transformers")
    home.serve()
    words = ("--model-engine", "sentence_transformers", "--model-name", MINILM, "--model-type", "embedding")
    launched = home.cli("launch", *words, seconds=300)
    assert launched.returncode == 0, launched.stderr
    yield home
    home.cli("stop")


def test_the_line_of_a_user_of_sentence_transformers_gives_its_vectors(home: Home) -> None:
    client = openai.OpenAI(base_url=f"{home.url}/v1", api_key="none", max_retries=0)
    answer = client.embeddings.create(model=MINILM, input=REFERENCE["texts"])
    for item, reference in zip(answer.data, REFERENCE["vectors"], strict=True):
        assert cosine(item.embedding, reference) > 0.9999
    over = httpx2.post(f"{home.url}/v1/embeddings", json={"model": MINILM, "input": "word " * 300}, timeout=60)
    assert (over.status_code, over.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_its_description_has_the_fields_that_dify_reads(home: Home) -> None:
    with Client(home.url) as client:
        described = client.describe_model(MINILM)
        embedded = client.get_model(MINILM).create_embedding(["Hello!"])
    expected = {"dimensions": 384, "max_tokens": 256, "context_length": 256, "language": ["en"]}
    assert {name: described[name] for name in expected} == expected
    assert described["model_engine"] == "Transformers" and len(embedded["data"][0]["embedding"]) == 384


def test_a_cross_encoder_ranks_by_the_name_of_its_older_engine(home: Home, tiny: Path) -> None:
    words = ("-n", "my-ranker", "-t", "rerank", "-en", "flag", "--model-path", str(tiny / "ranker"))
    launched = home.cli("launch", *words, seconds=300)
    assert launched.returncode == 0, launched.stderr
    uid = httpx2.get(f"{home.url}/v1/models", timeout=30).json()["data"][-1]["id"]
    body = {"model": uid, "query": QUERY, "documents": DOCUMENTS, "return_documents": True}
    answer = httpx2.post(f"{home.url}/v1/rerank", json=body, timeout=60).json()
    expected = json.loads((tiny / "expected.json").read_text())["ranker"]
    for result in answer["results"]:
        assert result["relevance_score"] == pytest.approx(expected[result["index"]], abs=1e-5)
        assert result["document"]["text"] == DOCUMENTS[result["index"]]


def test_sparse_embeddings_have_the_form_of_xinference_4(home: Home, tiny: Path) -> None:
    words = ("-n", "my-sparse", "-u", "sparse", "-t", "embedding", "-en", "flag", "--model-path", str(tiny / "plain"))
    launched = home.cli("launch", *words, seconds=300)
    assert launched.returncode == 0, launched.stderr
    texts = ["a llama eats grass", "wool", "The WOOL is warm and the llama eats a mountain", "what"]
    with Client(home.url) as client:
        answer = client.get_model("sparse").create_embedding(texts, return_sparse=True)
        dense = client.get_model("sparse").create_embedding(texts)
    assert {item["object"] for item in answer["data"]} == {"sparse_embedding"}
    expected = json.loads((tiny / "expected.json").read_text())["sparse"]
    for item in answer["data"]:
        assert item["embedding"] == pytest.approx(expected[item["index"]], abs=1e-5)
    assert answer["usage"] == dense["usage"] and len(dense["data"][0]["embedding"]) == 16


@pytest.mark.parametrize(
    ("model_type", "model_format", "said"),
    [
        ("embedding", "ggufv2", "names no pooling"),
        ("rerank", "ggufv2", "has no head that computes a score"),
        ("rerank", "pytorch", "LlamaForCausalLM"),
    ],
)
def test_a_chat_model_that_cannot_embed_or_rank_is_refused_at_its_launch(
    home: Home, tmp_path: Path, model_type: str, model_format: str, said: str
) -> None:
    path = write_gguf(HF, "Q8_0", tmp_path / "tiny.gguf") if model_format == "ggufv2" else HF
    fields = {"model_name": str(path), "model_type": model_type, "model_format": model_format}
    launched = home.launch(**fields)
    assert launched.status_code == 400, launched.text
    assert said in launched.json()["detail"]
