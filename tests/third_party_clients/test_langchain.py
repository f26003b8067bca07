"""LangChain's two packages: langchain-xinference over the public xinference-client, and langchain-openai."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydantic import BaseModel, Field

from tests.third_party_clients.asking import CHAT, CONTEXT, DIMENSIONS, EMBED, QUESTION, RERANK, TOO_LONG

pytest.importorskip("langchain_core", reason="`make test-clients` installs it")
langchain_xinference: Any = pytest.importorskip("langchain_xinference", reason="`make test-clients` installs it")
langchain_openai: Any = pytest.importorskip("langchain_openai", reason="`make test-clients` installs it")
messages: Any = pytest.importorskip("langchain_core.messages", reason="`make test-clients` installs it")
documents: Any = pytest.importorskip("langchain_core.documents", reason="`make test-clients` installs it")
openai: Any = pytest.importorskip("openai", reason="`make test-clients` installs it")

ASKED: str = QUESTION[0]["content"]
SHORT = {"max_tokens": 24, "temperature": 0}


class GetWeather(BaseModel):
    """The weather in a city."""

    city: str = Field(max_length=12)


@pytest.fixture(autouse=True)
def only_the_public_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """langchain-xinference takes `xinference.client` where it is; its users have only xinference-client."""
    monkeypatch.setitem(sys.modules, "xinference.client", None)


@pytest.fixture
def chat(url: str) -> Any:
    return langchain_xinference.ChatXinference(server_url=url, model_uid=CHAT, **SHORT)


@pytest.fixture
def llm(url: str) -> Any:
    return langchain_xinference.Xinference(server_url=url, model_uid=CHAT, max_tokens=8, temperature=0)


@pytest.fixture
def vectors(url: str) -> Any:
    return langchain_xinference.XinferenceEmbeddings(server_url=url, model_uid=EMBED)


@pytest.fixture
def order(url: str) -> Any:
    return langchain_xinference.XinferenceRerank(server_url=url, model_uid=RERANK)


@pytest.fixture
def over_openai(url: str) -> Any:
    return langchain_openai.ChatOpenAI(
        base_url=f"{url}/v1", api_key="none", model=CHAT, max_retries=0, temperature=0, max_tokens=24
    )


@pytest.fixture
def vectors_over_openai(url: str) -> Any:
    return langchain_openai.OpenAIEmbeddings(
        base_url=f"{url}/v1", api_key="none", model=EMBED, max_retries=0, check_embedding_ctx_length=False
    )


PAGES = ["Goodbye.", "Hello!", "Why?"]


class TestChatXinference:
    def test_it_is_invoked(self, chat: Any) -> None:
        assert "7 days" in chat.invoke(ASKED).content

    def test_it_takes_messages(self, chat: Any) -> None:
        asked = [messages.HumanMessage("Who are you?")]
        told = [messages.SystemMessage("You are a pirate."), *asked]
        assert chat.invoke(told).content != chat.invoke(asked).content

    def test_it_streams_the_same(self, chat: Any) -> None:
        chunks = list(chat.stream(ASKED))
        assert len(chunks) > 3
        assert "".join(chunk.content for chunk in chunks) == chat.invoke(ASKED).content

    def test_it_answers_a_batch(self, chat: Any) -> None:
        assert [bool(answer.content) for answer in chat.batch([ASKED, "Hello!"])] == [True, True]

    def test_a_stop_text_ends_it(self, chat: Any) -> None:
        assert "days" not in chat.invoke(ASKED, stop=["days"]).content

    async def test_it_is_invoked_and_streams_asynchronously(self, url: str) -> None:
        chat = langchain_xinference.ChatXinference(server_url=url, model_uid=CHAT, **SHORT)
        said = [chunk.content async for chunk in chat.astream(ASKED)]
        assert "".join(said) == (await chat.ainvoke(ASKED)).content

    def test_it_calls_a_tool(self, url: str) -> None:
        chat = langchain_xinference.ChatXinference(
            server_url=url, model_uid=CHAT, temperature=0, max_tokens=96, tool_choice="required"
        )
        (call,) = chat.bind_tools([GetWeather]).invoke("What is the weather in Paris?").tool_calls
        assert call["name"] == "GetWeather" and set(call["args"]) == {"city"}

    def test_a_mistake_is_told(self, chat: Any) -> None:
        with pytest.raises(RuntimeError, match="context length is 8191"):
            chat.invoke(TOO_LONG[0]["content"])


class TestXinferenceLlm:
    def test_it_is_invoked(self, llm: Any) -> None:
        assert llm.invoke("The capital of France is")

    def test_it_streams_the_same(self, llm: Any) -> None:
        prompt = "The capital of France is"
        assert "".join(llm.stream(prompt)) == llm.invoke(prompt)

    async def test_it_is_invoked_and_streams_asynchronously(self, url: str) -> None:
        llm = langchain_xinference.Xinference(server_url=url, model_uid=CHAT, max_tokens=8, temperature=0)
        prompt = "The capital of France is"
        assert "".join([text async for text in llm.astream(prompt)]) == await llm.ainvoke(prompt)


class TestXinferenceEmbeddings:
    def test_documents_and_a_query_are_embedded(self, vectors: Any) -> None:
        assert [len(vector) for vector in vectors.embed_documents(PAGES)] == [DIMENSIONS] * 3
        assert vectors.embed_query(PAGES[0]) == pytest.approx(vectors.embed_documents(PAGES)[0], abs=1e-3)

    async def test_they_are_embedded_asynchronously(self, url: str) -> None:
        vectors = langchain_xinference.XinferenceEmbeddings(server_url=url, model_uid=EMBED)
        assert len(await vectors.aembed_query("Hello!")) == DIMENSIONS

    def test_a_mistake_is_told(self, vectors: Any) -> None:
        with pytest.raises(RuntimeError, match=str(CONTEXT)):
            vectors.embed_query("word " * 900)


class TestXinferenceRerank:
    def test_documents_are_compressed_best_first(self, order: Any) -> None:
        found = order.compress_documents([documents.Document(page) for page in PAGES], "Hello!")
        scores = [document.metadata["relevance_score"] for document in found]
        assert scores == sorted(scores, reverse=True) and found

    async def test_they_are_compressed_asynchronously(self, url: str) -> None:
        order = langchain_xinference.XinferenceRerank(server_url=url, model_uid=RERANK)
        assert await order.acompress_documents([documents.Document(page) for page in PAGES], "Hello!")


class TestChatOpenAI:
    def test_it_is_invoked_with_usage_under_the_uid(self, over_openai: Any) -> None:
        answer = over_openai.invoke(ASKED)
        assert "7 days" in answer.content
        assert answer.response_metadata["model_name"] == CHAT and answer.usage_metadata["output_tokens"] > 0

    def test_it_streams_the_same_with_usage(self, over_openai: Any) -> None:
        chunks = list(over_openai.stream(ASKED, stream_usage=True))
        assert "".join(chunk.content for chunk in chunks) == over_openai.invoke(ASKED).content
        assert sum(c.usage_metadata["output_tokens"] for c in chunks if c.usage_metadata) > 0

    def test_it_answers_a_batch(self, over_openai: Any) -> None:
        assert [bool(answer.content) for answer in over_openai.batch([ASKED, "Hello!"])] == [True, True]

    async def test_it_is_invoked_and_streams_asynchronously(self, over_openai: Any) -> None:
        said = [chunk.content async for chunk in over_openai.astream(ASKED)]
        assert "".join(said) == (await over_openai.ainvoke(ASKED)).content

    def test_it_calls_a_tool(self, over_openai: Any) -> None:
        bound = over_openai.bind_tools([GetWeather], tool_choice="required").bind(max_tokens=96)
        (call,) = bound.invoke("What is the weather in Paris?").tool_calls
        assert call["name"] == "GetWeather" and set(call["args"]) == {"city"}

    def test_it_streams_a_tools_call(self, over_openai: Any) -> None:
        bound = over_openai.bind_tools([GetWeather], tool_choice="required").bind(max_tokens=96)
        whole = None
        for chunk in bound.stream("What is the weather in Paris?"):
            whole = chunk if whole is None else whole + chunk
        assert whole is not None and [set(call["args"]) for call in whole.tool_calls] == [{"city"}]

    @pytest.mark.parametrize("method", ["json_schema", "function_calling"])
    def test_it_gives_structured_output(self, url: str, method: str) -> None:
        chat = langchain_openai.ChatOpenAI(
            base_url=f"{url}/v1", api_key="none", model=CHAT, max_retries=0, temperature=0, max_tokens=96
        )
        asked = "What is the weather in Paris?"
        assert isinstance(chat.with_structured_output(GetWeather, method=method).invoke(asked), GetWeather)

    def test_it_speaks_the_responses_interface(self, url: str) -> None:
        chat = langchain_openai.ChatOpenAI(
            base_url=f"{url}/v1", api_key="none", model=CHAT, max_retries=0, temperature=0, use_responses_api=True
        )
        assert "7 days" in chat.invoke(ASKED).text
        assert "7 days" in "".join(chunk.text for chunk in chat.stream(ASKED))

    def test_a_mistake_is_openais(self, over_openai: Any) -> None:
        with pytest.raises(openai.BadRequestError, match="8191"):
            over_openai.invoke(TOO_LONG[0]["content"])

    def test_an_unknown_model_is_not_found(self, url: str) -> None:
        chat = langchain_openai.ChatOpenAI(base_url=f"{url}/v1", api_key="none", model="nobody", max_retries=0)
        with pytest.raises(openai.NotFoundError):
            chat.invoke(ASKED)


class TestOpenAIPlain:
    def test_the_completion_model_is_invoked_and_streams_the_same(self, url: str) -> None:
        llm = langchain_openai.OpenAI(
            base_url=f"{url}/v1", api_key="none", model=CHAT, max_retries=0, temperature=0, max_tokens=8
        )
        prompt = "The capital of France is"
        assert "".join(llm.stream(prompt)) == llm.invoke(prompt)

    def test_it_answers_several_prompts_at_once(self, url: str) -> None:
        llm = langchain_openai.OpenAI(
            base_url=f"{url}/v1", api_key="none", model=CHAT, max_retries=0, temperature=0, max_tokens=4
        )
        assert len(llm.generate(["The capital of France is", "Once upon a time"]).generations) == 2


class TestOpenAIEmbeddings:
    def test_documents_and_a_query_are_embedded(self, vectors_over_openai: Any) -> None:
        found = vectors_over_openai.embed_documents(PAGES)
        assert [len(vector) for vector in found] == [DIMENSIONS] * 3
        assert vectors_over_openai.embed_query(PAGES[0]) == pytest.approx(found[0], abs=1e-3)

    async def test_they_are_embedded_asynchronously(self, vectors_over_openai: Any) -> None:
        assert len(await vectors_over_openai.aembed_query("Hello!")) == DIMENSIONS
