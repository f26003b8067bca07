"""OpenAI's own Python SDK against a real model."""

from __future__ import annotations

import json
from typing import Any, cast

import openai
import pytest

from tests.support.home import UID, Home

QUESTION: list[Any] = [{"role": "user", "content": "How many days are in a week?"}]


@pytest.fixture
def client(running: Home) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)


def test_the_model_is_listed_under_its_uid(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [UID]


def test_a_chat_is_answered_with_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=UID, messages=QUESTION, max_tokens=24, temperature=0)
    assert "7 days" in (answer.choices[0].message.content or "")
    assert answer.model == UID
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_chat_gives_the_same_text_and_usage_at_the_end(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=UID, messages=QUESTION, max_tokens=24, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model=UID,
            messages=QUESTION,
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 10
    assert chunks[-1].usage is not None and whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert {chunk.model for chunk in chunks} == {UID}


def test_a_completion_is_answered_whole_and_streamed(client: openai.OpenAI) -> None:
    prompt = "The capital of France is"
    whole = client.completions.create(model=UID, prompt=prompt, max_tokens=8, temperature=0)
    parts = client.completions.create(model=UID, prompt=prompt, max_tokens=8, temperature=0, stream=True)
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert whole.model == UID


def test_a_forced_tool_is_called_with_arguments_of_its_schema(client: openai.OpenAI) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 12}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    answer = client.chat.completions.create(
        model=UID,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[tool],
        tool_choice="required",
        temperature=0,
        max_tokens=96,
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    call = cast(Any, calls[0])
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_an_answer_keeps_to_a_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "capital": {"type": "boolean"}},
        "required": ["city", "capital"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=UID,
        messages=[{"role": "user", "content": "Describe Paris as JSON."}],
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
        temperature=0,
        max_tokens=96,
    )
    value = json.loads(answer.choices[0].message.content or "")
    assert isinstance(value["city"], str) and isinstance(value["capital"], bool)


def test_logprobs_come_for_every_token_with_as_many_alternatives_as_asked(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=UID, messages=QUESTION, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert len(logprobs.content) == 4
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in logprobs.content)


def test_n_gives_as_many_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=UID, messages=QUESTION, max_tokens=6, n=3, seed=1)
    assert sorted(choice.index for choice in answer.choices) == [0, 1, 2]


def test_an_unknown_model_is_a_404_that_names_those_there_are(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=UID):
        client.chat.completions.create(model="smollm", messages=QUESTION)


def test_a_wrong_temperature_is_a_400_that_names_the_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=UID, messages=QUESTION, temperature=-1)
    assert caught.value.param == "temperature"
