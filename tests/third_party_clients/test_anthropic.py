"""Anthropic's own package against our server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.third_party_clients.asking import ANTHROPIC_TOOL, CHAT, EMBED, QUESTION, TOO_LONG, WEATHER_QUESTION

anthropic: Any = pytest.importorskip("anthropic", reason="`make test-clients` installs it")


@pytest.fixture(params=["", "/anthropic"])
def base(request: pytest.FixtureRequest, url: str) -> str:
    """Both addresses that messages are taken at."""
    prefix: str = request.param
    return url + prefix


@pytest.fixture
def client(base: str) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=base, api_key="none", max_retries=0) as client:
        yield client


#: The package's newest generation has no temperature of its own; the interface still takes it.
GREEDY = {"temperature": 0}
ASKED: dict[str, Any] = {"model": CHAT, "messages": QUESTION, "max_tokens": 24, "extra_body": GREEDY}


def ask(client: Any, messages: Any = QUESTION, **fields: Any) -> Any:
    return client.messages.create(**({**ASKED, "messages": messages} | fields))


def text_of(answer: Any) -> str:
    return "".join(block.text for block in answer.content if block.type == "text")


def test_a_message_is_answered_with_usage_under_the_uid(client: Any) -> None:
    answer = ask(client)
    assert "7 days" in text_of(answer)
    assert (answer.model, answer.type, answer.role, answer.stop_reason) == (CHAT, "message", "assistant", "end_turn")
    assert answer.usage.output_tokens > 0


def test_usage_counts_the_prompt_whether_cached_or_not(client: Any) -> None:
    usage = ask(client).usage
    counted = client.messages.count_tokens(model=CHAT, messages=QUESTION).input_tokens
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted


def test_a_stream_says_the_same(client: Any) -> None:
    with client.messages.stream(**ASKED) as stream:
        said = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert said == text_of(last) == text_of(ask(client))
    assert last.model == CHAT and last.usage.output_tokens == ask(client).usage.output_tokens


def test_a_streams_events_come_in_anthropics_order(client: Any) -> None:
    kinds = [event.type for event in ask(client, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_max_tokens_ends_it(client: Any) -> None:
    answer = ask(client, max_tokens=3)
    assert answer.stop_reason == "max_tokens" and answer.usage.output_tokens == 3


def test_a_stop_sequence_ends_it_and_is_named(client: Any) -> None:
    answer = ask(client, stop_sequences=["days"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "days")
    assert "days" not in text_of(answer)


@pytest.mark.parametrize("form", ["text", "blocks"])
def test_a_system_prompt_is_heard(client: Any, form: str) -> None:
    told = "You are a pirate."
    system = told if form == "text" else [{"type": "text", "text": told}]
    asked = [{"role": "user", "content": "Who are you?"}]
    assert text_of(ask(client, asked, system=system)) != text_of(ask(client, asked))


def test_content_may_be_in_blocks(client: Any) -> None:
    blocks = [{"type": "text", "text": QUESTION[0]["content"]}]
    assert "7 days" in text_of(ask(client, [{"role": "user", "content": blocks}]))


def test_a_tool_is_used(client: Any) -> None:
    answer = ask(client, WEATHER_QUESTION, tools=[ANTHROPIC_TOOL], tool_choice={"type": "any"}, max_tokens=96)
    (use,) = [block for block in answer.content if block.type == "tool_use"]
    assert answer.stop_reason == "tool_use" and use.name == "get_weather" and set(use.input) == {"city"}


def test_a_tools_use_is_streamed(client: Any) -> None:
    asked = ASKED | {"messages": WEATHER_QUESTION, "max_tokens": 96}
    with client.messages.stream(**asked, tools=[ANTHROPIC_TOOL], tool_choice={"type": "any"}) as stream:
        last = stream.get_final_message()
    (use,) = [block for block in last.content if block.type == "tool_use"]
    assert set(use.input) == {"city"}


def test_a_tools_result_is_taken(client: Any) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "It is sunny."}
    told = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    assert text_of(ask(client, [*WEATHER_QUESTION, *told], tools=[ANTHROPIC_TOOL]))


def test_tokens_are_counted(client: Any) -> None:
    few = client.messages.count_tokens(model=CHAT, messages=QUESTION).input_tokens
    more = client.messages.count_tokens(model=CHAT, messages=QUESTION, system="Be kind to everyone.").input_tokens
    assert few > 0 and few != more


def test_an_unknown_model_is_not_found_in_anthropics_form(client: Any) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        ask(client, model="nobody")
    assert caught.value.body["type"] == "error" and caught.value.body["error"]["type"] == "not_found_error"
    assert CHAT in caught.value.body["error"]["message"]


@pytest.mark.parametrize(("field", "value"), [("extra_body", {"temperature": 9}), ("max_tokens", 0), ("messages", [])])
def test_a_wrong_value_is_a_bad_request_that_names_its_field(client: Any, field: str, value: Any) -> None:
    named = "temperature" if field == "extra_body" else field
    with pytest.raises(anthropic.BadRequestError, match=named) as caught:
        ask(client, **{field: value})
    assert caught.value.body["error"]["type"] == "invalid_request_error"


def test_a_prompt_that_is_too_long_is_a_bad_request_with_the_limit(client: Any) -> None:
    with pytest.raises(anthropic.BadRequestError, match="8191"):
        ask(client, TOO_LONG)


def test_a_model_that_answers_no_messages_is_a_bad_request(client: Any) -> None:
    with pytest.raises(anthropic.BadRequestError, match="/v1/embeddings"):
        ask(client, model=EMBED)


def test_an_image_somewhere_else_is_not_fetched(client: Any) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:9/secret.png"}}
    with pytest.raises(anthropic.BadRequestError, match="data: URI"):
        ask(client, [{"role": "user", "content": [image]}])


def test_leaving_a_stream_stops_it(client: Any) -> None:
    stream = ask(client, [{"role": "user", "content": "Tell me a long story."}], max_tokens=4000, stream=True)
    next(iter(stream))
    stream.close()
    assert ask(client, max_tokens=2).model == CHAT


def test_models_are_listed(client: Any) -> None:
    assert CHAT in {model.id for model in client.models.list()}
    assert CHAT in {model.id for model in client.beta.models.list(limit=1)}
    model = client.models.retrieve(CHAT)
    assert (model.id, model.type, model.lifecycle) == (CHAT, "model", "active")
    assert model.max_input_tokens and model.created_at.year > 2000
    for name in ("nobody", "org/name"):
        with pytest.raises(anthropic.NotFoundError):
            client.models.retrieve(name)
    with pytest.raises(anthropic.BadRequestError, match="limit"):
        client.models.list(limit=0)


def test_a_request_without_a_version_is_a_bad_request(url: str) -> None:
    body = {"model": CHAT, "messages": QUESTION, "max_tokens": 2}
    answer = httpx2.post(f"{url}/v1/messages", json=body, timeout=60)
    assert answer.status_code == 400 and "anthropic-version" in answer.json()["error"]["message"]


async def test_the_asynchronous_client_is_answered_whole_and_streamed(url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        whole = await client.messages.create(**ASKED)
        async with client.messages.stream(**ASKED) as stream:
            said = "".join([text async for text in stream.text_stream])
    assert said == text_of(whole)
