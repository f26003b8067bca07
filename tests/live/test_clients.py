"""Both Python clients against a real server with a real model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client.either import FLAVOURS, make_either
from tests.support.home import UID, Home
from xinference.client import AsyncClient, AsyncRESTfulChatModelHandle, Client, RESTfulChatModelHandle

QUESTION = [{"role": "user", "content": "How many days are in a week?"}]
CONFIG = {"max_tokens": 24, "temperature": 0}
STREAMED = {**CONFIG, "stream": True}


#: What can be asked without changing anything; reading an answer checks its shape.
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("health", "auth", "status", "list_models", "list_instances", "vllm_models")),
    *((name, {"model_uid": UID}) for name in ("describe_model", "get_launch_model_progress", "list_model_replicas")),
    *((name, {}) for name in ("list_cached_models", "get_workers_info", "get_supervisor_info")),
    ("get_instance_info", {"model_name": UID, "model_uid": UID}),
    ("logs", {"model_uid": UID, "lines": 3}),
    ("follow_events", {"model_uid": UID}),
    ("query_engine_by_model_name", {"model_name": UID}),
    ("query_engine_by_model_name", {"model_name": "bge-m3", "model_type": "embedding", "enable_virtual_env": True}),
    ("engine_rows", {"model_name": UID}),
    ("list_model_registrations", {"model_type": "LLM"}),
    ("list_model_registrations", {"model_type": "rerank", "detailed": True}),
    ("get_model_registration", {"model_type": "LLM", "model_name": UID}),
    ("list_deletable_models", {"model_version": "smollm2-instruct--0_135B--ggufv2--Q4_1"}),
    ("plan_launch", {"model_name": UID, "model_engine": "llama.cpp", "model_uid": "another"}),
]


@pytest.fixture(scope="module")
def answer(running: Home) -> str:
    """What the model says to the question, asked as plainly as can be."""
    with Client(running.url) as client:
        whole = client.get_model(UID).chat(QUESTION, generate_config=CONFIG)
    assert whole["usage"]["completion_tokens"] > 0
    content: str = whole["choices"][0]["message"]["content"]
    assert "7" in content or "seven" in content
    return content


def test_a_launch_through_the_client_is_listed_described_and_terminated(running: Home) -> None:
    with Client(running.url) as client:
        uid = client.launch_model(UID, model_engine="llama.cpp", quantization="Q4_1", model_uid="second", n_ctx=512)
        assert uid == "second"
        assert client.list_models()[uid]["model_ability"] == client.describe_model(uid)["model_ability"]
        assert client.get_model(uid).generate("The capital of France is", {"max_tokens": 4})["model"] == uid
        client.terminate_model(uid)
        assert uid not in client.list_models()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_question_is_answered_in_the_shape_that_is_read(running: Home, flavour: str) -> None:
    with asyncio.Runner() as loop:
        client = make_either(flavour, loop)(running.url)
        for method, arguments in QUESTIONS:
            assert client(method, **arguments), method
        client.close()


async def test_a_replica_is_added_and_ended(running: Home) -> None:
    async with AsyncClient(running.url) as client:
        added = await client.add_model_replica(UID)
        assert added["replica_model_uid"] == f"{UID}-rep{added['replica_id']}"
        assert len(await client.list_model_replicas(UID)) == 2
        assert await client.terminate_model_replica(UID, added["replica_id"]) == 1


def test_a_streamed_chat_says_what_the_whole_one_says(running: Home, answer: str) -> None:
    with Client(running.url) as client, client.get_model(UID) as model:
        assert isinstance(model, RESTfulChatModelHandle)
        chunks = list(model.chat(QUESTION, generate_config=STREAMED))
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == answer


def test_a_prompt_in_the_old_form_is_answered_the_same(running: Home, answer: str) -> None:
    with Client(running.url) as client, client.get_model(UID) as model, pytest.deprecated_call():
        whole = model.chat(QUESTION[0]["content"], None, [], None, CONFIG)
    assert whole["choices"][0]["message"]["content"] == answer


async def test_the_async_client_says_the_same_whole_and_streamed(running: Home, answer: str) -> None:
    async with AsyncClient(running.url) as client:
        model = await client.get_model(UID)
        assert isinstance(model, AsyncRESTfulChatModelHandle)
        async with model:
            whole = await model.chat(QUESTION, generate_config=CONFIG)
            assert whole["choices"][0]["message"]["content"] == answer
            pieces = [
                chunk["choices"][0]["delta"].get("content") or ""
                async for chunk in await model.chat(QUESTION, generate_config=STREAMED)
                if chunk["choices"]
            ]
    assert "".join(pieces) == answer


def test_a_completion_is_the_same_whole_and_streamed(running: Home) -> None:
    with Client(running.url) as client, client.get_model(UID) as model:
        whole = model.generate("One, two, three,", CONFIG)["choices"][0]["text"]
        pieces = [c["choices"][0]["text"] for c in model.generate("One, two, three,", STREAMED) if c["choices"]]
    assert whole and "".join(pieces) == whole


def test_a_stream_that_is_left_alone_stops_the_model(running: Home) -> None:
    with Client(running.url) as client, client.get_model(UID) as model:
        for _ in range(8):  # twice its slots: it would wait for the first ones if they went on
            endless = model.chat(QUESTION, generate_config={"stream": True, "max_tokens": 4000, "ignore_eos": True})
            next(endless)
            endless.close()
        assert model.chat(QUESTION, generate_config=CONFIG)["choices"]


def test_a_mistake_is_a_runtime_error_that_says_what_is_wrong(running: Home) -> None:
    with Client(running.url) as client:
        with pytest.raises(RuntimeError, match="smollm2"):
            client.get_model("smollm2")
        with pytest.raises(RuntimeError, match="temperature"):
            client.get_model(UID).chat(QUESTION, generate_config={"temperature": -1})
        with pytest.raises(RuntimeError, match="smollm2-instruct"):
            client.launch_model("smollm2-instruc")
