"""The options of an engine by name, before anything is launched."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.cases import in_one_test


@pytest.mark.process
async def test_the_options_of_llama_cpp_have_their_types(empty: httpx2.AsyncClient) -> None:
    answer = (await empty.get("/v1/engine_options/LLAMA.CPP")).json()
    assert answer["engine"] == "llama.cpp"
    assert answer["options"]["n_ctx"] == "int" and "flash_attn_type" in answer["options"]
    assert not {"port", "model", "api_keys"} & answer["options"].keys()


@in_one_test(
    ("engine", "option"),
    [("vLLM", "max_model_len"), ("SGLang", "context_length"), ("Transformers", "attn_implementation")],
)
async def test_options_are_listed_without_those_that_a_launch_may_not_set(
    empty: httpx2.AsyncClient, engine: str, option: str
) -> None:
    options = (await empty.get(f"/v1/engine_options/{engine}")).json()["options"]
    assert option in options, sorted(options)
    assert not {"port", "host", "api_key"} & options.keys()


async def test_an_unknown_engine_is_named_with_those_that_there_are(empty: httpx2.AsyncClient) -> None:
    answer = await empty.get("/v1/engine_options/lama.cpp")
    problem = answer.json()["problem"]
    assert (answer.status_code, problem["code"]) == (400, "engine_not_found")
    assert "llama.cpp" in problem["hint"]
