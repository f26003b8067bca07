"""Anthropic's messages on the Transformers server, which has chats only: the gateway translates them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway.harness import HandMadeRouter, Served, route, served
from tests.live.transformers_engine import KEY, UID, RunningEngine, engine
from xinference.engines.transformers.engine import PATHS
from xinference.routing.table import Target

pytestmark = pytest.mark.timeout(300)
QUESTION = [{"role": "user", "content": "Who are you?"}]
TOOL = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with engine(tmp_path_factory.mktemp("engine") / "log") as running:
        yield running


@pytest.fixture
async def gateway(tiny: RunningEngine) -> AsyncIterator[Served]:
    router = HandMadeRouter()
    router.publish(route(Target("r0", tiny.url, KEY), uid=UID, paths=PATHS["LLM"], engine="Transformers"))
    async with served(router) as gateway:
        yield gateway


async def ask(gateway: Served, path: str = "/v1/messages", **fields: Any) -> Any:
    body = {"model": UID, "messages": QUESTION, "max_tokens": 24, "temperature": 0, **fields}
    if path != "/v1/messages":
        del body["max_tokens"], body["temperature"]
    status, answer, _ = await gateway.post(path, body)
    assert status == 200, answer
    return answer


async def streamed(gateway: Served, **fields: Any) -> list[Any]:
    body = {"model": UID, "messages": QUESTION, "max_tokens": 24, "temperature": 0, "stream": True, **fields}
    status, events = await gateway.stream("/v1/messages", body)
    assert status == 200
    return [json.loads(line[6:]) for line in events.split(b"\n") if line.startswith(b"data: ")]


def text_of(answer: Any) -> str:
    return "".join(block["text"] for block in answer["content"])


async def test_a_message_a_stream_and_a_chat_have_the_same_text_and_counts(
    gateway: Served, tiny: RunningEngine
) -> None:
    chat, answer, events = tiny.chat(max_tokens=24), await ask(gateway), await streamed(gateway)
    assert text_of(answer) == chat["choices"][0]["message"]["content"]
    pieces = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert len(pieces) > 1 and "".join(pieces) == text_of(answer)
    assert events[-2]["usage"] == answer["usage"]
    counted = await ask(gateway, "/v1/messages/count_tokens")
    assert counted == {"input_tokens": answer["usage"]["input_tokens"]}
    assert counted["input_tokens"] == chat["usage"]["prompt_tokens"]


async def test_the_answer_continues_a_last_message_and_does_not_repeat_it(gateway: Served) -> None:
    answer = text_of(await ask(gateway, max_tokens=40))
    begun = answer.partition(",")[0] + ","  # between two words: a part of a word has other tokens
    assert begun != answer
    given = [*QUESTION, {"role": "assistant", "content": [{"type": "text", "text": begun}]}]
    assert begun + text_of(await ask(gateway, messages=given, max_tokens=40)) == answer
    events = await streamed(gateway, messages=given, max_tokens=40)
    pieces = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert begun + "".join(pieces) == answer


async def test_the_ends_of_answers_have_their_reasons(gateway: Served) -> None:
    assert (await ask(gateway, max_tokens=2))["stop_reason"] == "max_tokens"
    answer = text_of(await ask(gateway))
    stop = answer[5:9]
    ended = await ask(gateway, stop_sequences=["never said", stop])
    assert (ended["stop_reason"], ended["stop_sequence"]) == ("stop_sequence", stop)
    assert text_of(ended) == answer[: answer.find(stop)]
    delta = (await streamed(gateway, stop_sequences=[stop]))[-2]["delta"]
    assert delta == {"stop_reason": "stop_sequence", "stop_sequence": stop}


async def test_a_tool_is_used_and_its_result_is_taken(gateway: Served) -> None:
    forced: dict[str, Any] = {
        "tools": [TOOL],
        "tool_choice": {"type": "tool", "name": "get_weather"},
        "max_tokens": 200,
    }
    answer = await ask(gateway, **forced)
    (use,) = [block for block in answer["content"] if block["type"] == "tool_use"]
    assert answer["stop_reason"] == "tool_use" and use["input"]["city"] in ("Paris", "Rome")
    events = await streamed(gateway, **forced)
    pieces = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
    assert json.loads("".join(pieces)) == use["input"] and events[-2]["delta"]["stop_reason"] == "tool_use"
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": [{"type": "text", "text": "Sun."}]}
    told = [*QUESTION, {"role": "assistant", "content": answer["content"]}, {"role": "user", "content": [result]}]
    status, said, _ = await gateway.post(
        "/v1/messages", {"model": UID, "messages": told, "tools": [TOOL], "max_tokens": 8}
    )
    # The model's template may refuse a tool's result; the refusal has Anthropic's form.
    assert status == 200 or (status, said["type"], said["error"]["type"]) == (400, "error", "invalid_request_error")
    counted = await ask(gateway, "/v1/messages/count_tokens", tools=[TOOL])
    assert counted["input_tokens"] == (await ask(gateway, tools=[TOOL]))["usage"]["input_tokens"]


async def test_an_image_is_refused_in_anthropics_form(gateway: Served) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    told = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    status, said, _ = await gateway.post("/v1/messages", {"model": UID, "messages": told, "max_tokens": 8})
    assert (status, said["type"], said["error"]["type"]) == (400, "error", "invalid_request_error")
    assert "only text" in said["error"]["message"]
