"""Both Python clients against a real server with a real model."""

from __future__ import annotations

import pytest

from tests.live.home import UID, Home
from xinference.client import AsyncClient, AsyncRESTfulChatModelHandle, Client, RESTfulChatModelHandle

QUESTION = [{"role": "user", "content": "How many days are in a week?"}]
CONFIG = {"max_tokens": 24, "temperature": 0}
STREAMED = {**CONFIG, "stream": True}


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
