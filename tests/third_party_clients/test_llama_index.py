"""LlamaIndex's package for Xinference: it speaks through our own client, by the arguments of its older generation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.third_party_clients.asking import CHAT, QUESTION

llms: Any = pytest.importorskip("llama_index.llms.xinference", reason="`make test-clients` installs it")
core: Any = pytest.importorskip("llama_index.core.llms", reason="`make test-clients` installs it")

ASKED: str = QUESTION[0]["content"]


@pytest.fixture
def llm(url: str) -> Any:
    return llms.Xinference(model_uid=CHAT, endpoint=url, temperature=0.0, max_tokens=24)


def test_it_knows_the_models_context(llm: Any) -> None:
    assert llm.context_window == 8191 and llm.metadata.model_name == CHAT


def test_a_prompt_is_completed(llm: Any) -> None:
    assert "7 days" in llm.complete(ASKED).text


def test_a_completion_is_streamed_the_same(llm: Any) -> None:
    parts = list(llm.stream_complete(ASKED))
    assert len(parts) > 3 and parts[-1].text == llm.complete(ASKED).text


def test_a_chat_is_answered(llm: Any) -> None:
    assert "7 days" in llm.chat([core.ChatMessage(role="user", content=ASKED)]).message.content


def test_a_chat_is_streamed_the_same(llm: Any) -> None:
    asked = [core.ChatMessage(role="user", content=ASKED)]
    parts = list(llm.stream_chat(asked))
    assert len(parts) > 3 and parts[-1].message.content == llm.chat(asked).message.content


def test_what_was_said_before_is_known(llm: Any) -> None:
    told = [
        core.ChatMessage(role="user", content="My cat is called Tom."),
        core.ChatMessage(role="assistant", content="Nice."),
        core.ChatMessage(role="user", content="How is my cat called?"),
    ]
    assert "Tom" in llm.chat(told).message.content


async def test_it_is_asked_asynchronously(llm: Any) -> None:
    assert "7 days" in (await llm.acomplete(ASKED)).text
