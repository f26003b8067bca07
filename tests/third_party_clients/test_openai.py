"""OpenAI's own package against our server: chat, tools, structured output, completions, embeddings and responses."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from tests.third_party_clients.asking import (
    CHAT,
    CITY,
    CONTEXT,
    DIMENSIONS,
    EMBED,
    FUNCTION,
    PIXEL,
    QUESTION,
    RERANK,
    TOO_LONG,
    TOOL,
    WEATHER_QUESTION,
)

openai: Any = pytest.importorskip("openai", reason="`make test-clients` installs it")
pytest.importorskip("xinference_client", reason="this suite runs whole, by `make test-clients`")

STORY = [{"role": "user", "content": "Tell me a very long story about a fox."}]


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def ask(client: Any) -> Callable[..., Any]:
    """A chat whose answer is the same each time."""

    def ask(messages: Any = QUESTION, **fields: Any) -> Any:
        return client.chat.completions.create(**({"model": CHAT, "messages": messages, "temperature": 0} | fields))

    return ask


def text_of(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


class City(BaseModel):
    name: str
    capital: bool


class TestModels:
    def test_they_are_listed_by_uid(self, client: Any) -> None:
        assert {CHAT, EMBED, RERANK} <= {model.id for model in client.models.list()}

    def test_each_is_a_model_of_ours(self, client: Any) -> None:
        assert {(model.object, model.owned_by) for model in client.models.list()} == {("model", "xinference")}

    def test_one_is_retrieved(self, client: Any) -> None:
        assert client.models.retrieve(CHAT).id == CHAT

    def test_an_unknown_one_is_not_found(self, client: Any) -> None:
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nobody")


class TestChat:
    def test_it_is_answered_under_the_uid(self, ask: Any) -> None:
        answer = ask(max_tokens=24)
        assert "7 days" in answer.choices[0].message.content
        assert (answer.model, answer.object) == (CHAT, "chat.completion")
        assert answer.id.startswith("chatcmpl-") and answer.created > 1_700_000_000

    def test_usage_adds_up(self, ask: Any) -> None:
        usage = ask(max_tokens=5).usage
        assert usage.completion_tokens == 5 and usage.prompt_tokens > 10
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens

    def test_a_stream_says_the_same_under_the_same_model(self, ask: Any) -> None:
        chunks = list(ask(max_tokens=24, stream=True))
        assert text_of(chunks) == ask(max_tokens=24).choices[0].message.content
        assert {chunk.model for chunk in chunks} == {CHAT} and len({chunk.id for chunk in chunks}) == 1
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason == "stop"

    def test_a_stream_has_no_usage_unless_asked(self, ask: Any) -> None:
        assert {chunk.usage for chunk in ask(max_tokens=3, stream=True)} == {None}

    def test_a_stream_ends_with_the_usage_that_was_asked_for(self, ask: Any) -> None:
        chunks = list(ask(max_tokens=5, stream=True, stream_options={"include_usage": True}))
        assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 5
        assert chunks[-1].usage.prompt_tokens == ask(max_tokens=1).usage.prompt_tokens

    def test_a_stream_ends_with_done(self, url: str) -> None:
        body = {"model": CHAT, "messages": QUESTION, "max_tokens": 2, "stream": True}
        assert httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60).text.rstrip().endswith("data: [DONE]")

    def test_the_streaming_helper_gives_the_whole_at_its_end(self, client: Any) -> None:
        asked = {"model": CHAT, "messages": QUESTION, "max_tokens": 24, "temperature": 0}
        with client.chat.completions.stream(**asked) as stream:
            kinds = {event.type for event in stream}
            answer = stream.get_final_completion()
        assert "content.delta" in kinds and "7 days" in answer.choices[0].message.content

    def test_n_gives_as_many_choices(self, ask: Any) -> None:
        answer = ask(max_tokens=4, n=3, temperature=1, seed=3)
        assert sorted(choice.index for choice in answer.choices) == [0, 1, 2]

    def test_usage_counts_every_choice(self, ask: Any) -> None:
        assert ask(max_tokens=4, n=3, temperature=1, messages=STORY).usage.completion_tokens == 12

    def test_a_stream_of_choices_has_one_usage_of_all(self, ask: Any) -> None:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(ask(max_tokens=4, n=2, temperature=1, messages=STORY, **options))
        assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [8]
        assert {chunk.choices[0].index for chunk in chunks if chunk.choices} == {0, 1}

    def test_max_tokens_ends_it(self, ask: Any) -> None:
        assert ask(STORY, max_tokens=3).choices[0].finish_reason == "length"

    def test_max_completion_tokens_ends_it_too(self, ask: Any) -> None:
        answer = ask(STORY, max_completion_tokens=3)
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 3)

    def test_a_stop_text_ends_it_and_is_not_said(self, ask: Any) -> None:
        answer = ask(max_tokens=24, stop=["days"])
        assert answer.choices[0].finish_reason == "stop" and "days" not in answer.choices[0].message.content

    def test_one_seed_says_one_thing(self, ask: Any) -> None:
        said = [ask(STORY, max_tokens=12, temperature=1.5, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
        assert said[0] == said[1] != said[2]

    def test_logprobs_come_with_as_many_alternatives_as_asked(self, ask: Any) -> None:
        content = ask(max_tokens=4, logprobs=True, top_logprobs=3).choices[0].logprobs.content
        assert len(content) == 4 and all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in content)

    def test_logprobs_come_in_a_stream(self, ask: Any) -> None:
        chunks = ask(max_tokens=4, logprobs=True, top_logprobs=2, stream=True)
        tokens = [c.choices[0].logprobs.content[0] for c in chunks if c.choices and c.choices[0].logprobs]
        assert len(tokens) == 4 and all(len(token.top_logprobs) == 2 for token in tokens)

    def test_a_logit_bias_forbids_a_token(self, ask: Any, url: str) -> None:
        first = ask(max_tokens=1).choices[0].message.content
        tokenized = httpx2.post(f"{url}/tokenize", json={"model": CHAT, "content": first}, timeout=60).json()
        banned = {str(token): -100 for token in tokenized["tokens"]}
        assert ask(max_tokens=1, logit_bias=banned).choices[0].message.content != first

    @pytest.mark.parametrize("role", ["system", "developer"])
    def test_a_system_message_is_heard(self, ask: Any, role: str) -> None:
        asked = [{"role": "user", "content": "Who are you?"}]
        said = [
            ask([*told, *asked], max_tokens=16).choices[0].message.content
            for told in ([], [{"role": role, "content": "You are a pirate."}])
        ]
        assert said[0] != said[1]

    def test_what_was_said_before_is_known(self, ask: Any) -> None:
        told = [{"role": "user", "content": "My cat is called Tom."}, {"role": "assistant", "content": "Nice."}]
        asked = [*told, {"role": "user", "content": "How is my cat called?"}]
        assert "Tom" in ask(asked, max_tokens=24).choices[0].message.content

    def test_content_may_be_in_parts(self, ask: Any) -> None:
        parts = [{"type": "text", "text": QUESTION[0]["content"]}]
        assert "7 days" in ask([{"role": "user", "content": parts}], max_tokens=24).choices[0].message.content

    def test_fields_that_are_null_or_have_no_effect_are_taken(self, ask: Any) -> None:
        answer = ask(max_tokens=None, stop=None, n=1, user="someone", extra_body={"best_of": 1, "tools": None})
        assert "7 days" in answer.choices[0].message.content

    def test_leaving_a_stream_stops_it(self, client: Any, ask: Any) -> None:
        stream = ask(STORY, max_tokens=4000, stream=True)
        next(iter(stream))
        stream.close()
        assert ask(max_tokens=24).choices[0].message.content

    def test_the_raw_answer_can_be_had(self, client: Any) -> None:
        raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=QUESTION, max_tokens=2)
        assert raw.headers["content-type"].startswith("application/json") and raw.parse().model == CHAT


class TestTools:
    def test_a_required_tool_is_called(self, ask: Any) -> None:
        choice = ask(WEATHER_QUESTION, tools=[TOOL], tool_choice="required", max_tokens=96).choices[0]
        (call,) = choice.message.tool_calls
        assert choice.finish_reason == "tool_calls" and call.function.name == FUNCTION["name"] and call.id
        assert set(json.loads(call.function.arguments)) == {"city"}

    def test_a_named_tool_is_called(self, ask: Any) -> None:
        other = {"type": "function", "function": {**FUNCTION, "name": "get_time"}}
        named = {"type": "function", "function": {"name": "get_weather"}}
        choice = ask(WEATHER_QUESTION, tools=[other, TOOL], tool_choice=named, max_tokens=96).choices[0]
        assert [call.function.name for call in choice.message.tool_calls] == ["get_weather"]

    def test_no_tool_is_called_if_none_is_wanted(self, ask: Any) -> None:
        choice = ask(WEATHER_QUESTION, tools=[TOOL], tool_choice="none", max_tokens=24).choices[0]
        assert not choice.message.tool_calls and choice.message.content

    def test_a_call_is_streamed_in_pieces(self, ask: Any) -> None:
        chunks = list(ask(WEATHER_QUESTION, tools=[TOOL], tool_choice="required", max_tokens=96, stream=True))
        calls = [call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or []]
        assert [call.function.name for call in calls if call.function.name] == ["get_weather"]
        assert set(json.loads("".join(call.function.arguments or "" for call in calls))) == {"city"}
        assert chunks[-1].choices[0].finish_reason == "tool_calls"

    def test_a_tools_result_is_taken(self, ask: Any) -> None:
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
        }
        told = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "It is sunny in Paris."},
        ]
        assert ask([*WEATHER_QUESTION, *told], tools=[TOOL], max_tokens=24).choices[0].message.content

    def test_a_choice_of_a_tool_that_is_not_there_is_named(self, ask: Any) -> None:
        with pytest.raises(openai.BadRequestError, match="get_time"):
            ask(WEATHER_QUESTION, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "get_time"}})


class TestStructuredOutput:
    def test_an_answer_keeps_to_a_json_schema(self, ask: Any) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
        answer = ask(WEATHER_QUESTION, response_format=wanted, max_tokens=64)
        assert set(json.loads(answer.choices[0].message.content)) == {"city"}

    def test_an_answer_is_parsed_into_a_model(self, client: Any) -> None:
        asked = [{"role": "user", "content": "Describe Paris as JSON."}]
        answer = client.chat.completions.parse(
            model=CHAT, messages=asked, response_format=City, temperature=0, max_tokens=96
        )
        assert isinstance(answer.choices[0].message.parsed, City)

    def test_an_answer_is_json_if_that_is_all_that_is_asked(self, ask: Any) -> None:
        asked = [{"role": "user", "content": 'Answer with the JSON {"a": 1} and nothing else.'}]
        answer = ask(asked, response_format={"type": "json_object"}, max_tokens=64)
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(answer.choices[0].message.content), dict)
        assert answer.choices[0].message.content.lstrip().startswith("{")

    def test_a_schema_that_is_none_is_a_bad_request(self, ask: Any) -> None:
        broken = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}
        with pytest.raises(openai.BadRequestError):
            ask(response_format=broken, max_tokens=8)


class TestMistakes:
    def test_an_unknown_model_is_not_found(self, ask: Any) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            ask(model="nobody")
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert CHAT in str(caught.value)

    def test_a_prompt_that_is_too_long_has_openais_code(self, ask: Any) -> None:
        with pytest.raises(openai.BadRequestError, match="8191") as caught:
            ask(TOO_LONG)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")

    @pytest.mark.parametrize(
        ("field", "value"),
        [("temperature", 3), ("top_p", 2), ("n", 0), ("max_tokens", -1), ("presence_penalty", 9), ("top_logprobs", 99)],
    )
    def test_a_wrong_value_names_its_field(self, ask: Any, field: str, value: Any) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(**{field: value})
        assert caught.value.param == field and caught.value.type == "invalid_request_error"

    def test_no_messages_are_a_bad_request(self, ask: Any) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            ask([])
        assert caught.value.param == "messages"

    def test_a_wrong_role_is_named_with_its_place(self, ask: Any) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            ask([{"role": "wizard", "content": "x"}])
        assert caught.value.param == "messages[0].role"

    def test_an_image_for_a_model_that_reads_only_is_a_bad_request(self, ask: Any) -> None:
        image = {"type": "image_url", "image_url": {"url": PIXEL}}
        with pytest.raises(openai.BadRequestError, match="image"):
            ask([{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}])

    def test_an_image_somewhere_else_is_not_fetched(self, ask: Any) -> None:
        image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/secret.png"}}
        with pytest.raises(openai.BadRequestError, match="data: URI"):
            ask([{"role": "user", "content": [image]}])

    def test_chatting_with_an_embedding_model_names_the_right_route(self, ask: Any) -> None:
        with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
            ask(model=EMBED)

    def test_embedding_with_a_chat_model_names_the_model_that_could(self, client: Any) -> None:
        with pytest.raises(openai.BadRequestError, match=EMBED):
            client.embeddings.create(model=CHAT, input="x")

    def test_a_path_that_is_not_there_is_not_found(self, client: Any) -> None:
        with pytest.raises(openai.NotFoundError):
            client.images.generate(model=CHAT, prompt="a fox")


class TestCompletions:
    def test_it_goes_on_with_the_prompt(self, client: Any) -> None:
        answer = client.completions.create(model=CHAT, prompt="The capital of France is", max_tokens=8, temperature=0)
        assert (answer.model, answer.object) == (CHAT, "text_completion") and answer.choices[0].text
        assert answer.usage.completion_tokens == 8

    def test_a_stream_says_the_same(self, client: Any) -> None:
        asked = {"model": CHAT, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
        chunks = list(client.completions.create(**asked, stream=True))
        assert "".join(c.choices[0].text for c in chunks) == client.completions.create(**asked).choices[0].text
        assert {chunk.model for chunk in chunks} == {CHAT}

    def test_a_stream_ends_with_done(self, url: str) -> None:
        body = {"model": CHAT, "prompt": "Hi", "max_tokens": 2, "stream": True}
        assert httpx2.post(f"{url}/v1/completions", json=body, timeout=60).text.rstrip().endswith("data: [DONE]")

    def test_several_prompts_are_answered_in_order_and_all_counted(self, client: Any) -> None:
        asked = {"model": CHAT, "max_tokens": 4, "temperature": 0}
        prompts = ["The capital of France is", "Once upon a time there was"]
        both = client.completions.create(prompt=prompts, **asked)
        alone = [client.completions.create(prompt=prompt, **asked) for prompt in prompts]
        assert [c.text for c in both.choices] == [one.choices[0].text for one in alone]
        assert both.usage.completion_tokens == 8
        assert both.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)

    def test_a_prompt_of_token_ids_is_taken(self, client: Any, url: str) -> None:
        prompt = "The capital of France is"
        ids = httpx2.post(f"{url}/tokenize", json={"model": CHAT, "content": prompt}, timeout=60).json()["tokens"]
        said = [
            client.completions.create(model=CHAT, prompt=p, max_tokens=6, temperature=0).choices[0].text
            for p in (prompt, ids)
        ]
        assert said[0] == said[1]

    def test_logprobs_have_the_older_form(self, client: Any) -> None:
        answer = client.completions.create(model=CHAT, prompt="Hello", max_tokens=3, logprobs=2, temperature=0)
        logprobs = answer.choices[0].logprobs
        assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 3
        assert "".join(logprobs.tokens) == answer.choices[0].text
        assert logprobs.text_offset[0] == 0 and all(len(top) == 2 for top in logprobs.top_logprobs)

    def test_echo_says_the_prompt_too(self, client: Any) -> None:
        answer = client.completions.create(model=CHAT, prompt="Hello", max_tokens=3, echo=True, temperature=0)
        assert answer.choices[0].text.startswith("Hello")

    def test_a_prompt_that_is_too_long_has_openais_code(self, client: Any) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model=CHAT, prompt="word " * 9000)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


class TestEmbeddings:
    def test_the_packages_own_base64_is_understood(self, client: Any) -> None:
        plain = client.embeddings.create(model=EMBED, input="Hello!", encoding_format="float")
        packed = client.embeddings.create(model=EMBED, input="Hello!")
        assert plain.data[0].embedding == pytest.approx(packed.data[0].embedding, abs=1e-6)
        assert len(packed.data[0].embedding) == DIMENSIONS

    def test_base64_as_asked_for_stays_text(self, client: Any) -> None:
        answer = client.embeddings.create(model=EMBED, input="Hello!", encoding_format="base64")
        assert isinstance(answer.data[0].embedding, str)

    def test_vectors_have_length_one(self, client: Any) -> None:
        vector = client.embeddings.create(model=EMBED, input="Hello!").data[0].embedding
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-3)

    def test_many_inputs_keep_their_order_and_are_counted(self, client: Any) -> None:
        texts = [f"text number {n}" for n in range(12)]
        answer = client.embeddings.create(model=EMBED, input=texts)
        assert [item.index for item in answer.data] == list(range(12))
        assert answer.model == EMBED and answer.usage.prompt_tokens == answer.usage.total_tokens > 24

    def test_token_ids_are_taken(self, client: Any) -> None:
        assert len(client.embeddings.create(model=EMBED, input=[[100, 101], [102]]).data) == 2

    def test_an_input_that_is_too_long_has_openais_code(self, client: Any) -> None:
        with pytest.raises(openai.BadRequestError, match=str(CONTEXT)) as caught:
            client.embeddings.create(model=EMBED, input="word " * 900)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")

    def test_the_models_own_dimensions_may_be_asked_for(self, client: Any) -> None:
        answer = client.embeddings.create(model=EMBED, input="Hello!", dimensions=DIMENSIONS)
        assert len(answer.data[0].embedding) == DIMENSIONS

    def test_other_dimensions_are_named(self, client: Any) -> None:
        with pytest.raises(openai.BadRequestError, match=str(DIMENSIONS)) as caught:
            client.embeddings.create(model=EMBED, input="Hello!", dimensions=DIMENSIONS + 1)
        assert caught.value.param == "dimensions"

    def test_no_input_is_a_bad_request(self, client: Any) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model=EMBED, input=[])
        assert caught.value.param == "input"


class TestResponses:
    def test_one_is_created(self, client: Any) -> None:
        answer = client.responses.create(model=CHAT, input="How many days are in a week?", temperature=0)
        assert "7 days" in answer.output_text
        assert (answer.model, answer.object, answer.status) == (CHAT, "response", "completed")
        assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens

    def test_a_stream_says_the_same_in_the_packages_events(self, client: Any) -> None:
        asked = {"model": CHAT, "input": "How many days are in a week?", "temperature": 0}
        events = list(client.responses.create(**asked, stream=True))
        kinds = [event.type for event in events]
        assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
        said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert said == client.responses.create(**asked).output_text
        assert events[-1].response.model == CHAT and events[-1].response.usage.output_tokens > 0

    def test_every_response_in_a_stream_names_the_model(self, client: Any) -> None:
        events = client.responses.create(model=CHAT, input="Hi", max_output_tokens=2, stream=True)
        assert {event.response.model for event in events if hasattr(event, "response")} == {CHAT}

    def test_instructions_are_heard(self, client: Any) -> None:
        asked = {"model": CHAT, "input": "Who are you?", "temperature": 0, "max_output_tokens": 16}
        told = client.responses.create(**asked, instructions="You are a pirate.")
        assert told.output_text != client.responses.create(**asked).output_text

    def test_messages_are_taken_as_input(self, client: Any) -> None:
        answer = client.responses.create(model=CHAT, input=QUESTION, temperature=0, max_output_tokens=24)
        assert "7 days" in answer.output_text

    def test_a_function_is_called(self, client: Any) -> None:
        answer = client.responses.create(
            model=CHAT,
            input=WEATHER_QUESTION[0]["content"],
            tools=[{"type": "function", **FUNCTION}],
            tool_choice="required",
            temperature=0,
            max_output_tokens=96,
        )
        calls = [item for item in answer.output if item.type == "function_call"]
        assert [call.name for call in calls] == ["get_weather"]
        assert set(json.loads(calls[0].arguments)) == {"city"}

    def test_an_unknown_model_is_not_found(self, client: Any) -> None:
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="nobody", input="x")

    def test_a_wrong_value_names_its_field(self, client: Any) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model=CHAT, input="x", temperature=9)
        assert caught.value.param == "temperature"


class TestAsync:
    async def test_a_chat_is_answered_whole_and_streamed(self, url: str) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            asked = {"model": CHAT, "messages": QUESTION, "max_tokens": 24, "temperature": 0}
            whole = await client.chat.completions.create(**asked)
            chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        assert text_of(chunks) == whole.choices[0].message.content

    async def test_many_are_answered_at_once(self, url: str) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            asked = {"model": CHAT, "messages": QUESTION, "max_tokens": 4, "temperature": 0}
            answers = await asyncio.gather(*(client.chat.completions.create(**asked) for _ in range(6)))
        assert {answer.usage.completion_tokens for answer in answers} == {4}

    async def test_leaving_a_stream_stops_it(self, url: str) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            asked = {"model": CHAT, "messages": STORY, "max_tokens": 4000}
            stream = await client.chat.completions.create(**asked, stream=True)
            await anext(aiter(stream))
            await stream.close()
            answer = await client.chat.completions.create(model=CHAT, messages=QUESTION, max_tokens=2)
        assert answer.model == CHAT
