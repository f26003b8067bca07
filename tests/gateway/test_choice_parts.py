"""More choices than an engine has slots are asked for in parts, and come as one answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.gateway.harness import CHAT, HandMadeRouter, Said, call, chunked, gateway_of, raw_engine, route
from xinference.gateway.app import Gateway

CHATS, TEXTS = "/v1/chat/completions", "/v1/completions"


def event(index: int, text: str, *, is_text: bool = False, end: bool = False) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": index, "finish_reason": "stop" if end else None}
    choice |= {"text": text} if is_text else {"delta": {"content": text}}
    return {"id": f"id-{text[0]}", "object": "chat.completion.chunk", "choices": [choice]}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"id": "id-u", "choices": [], "usage": counts}


def stream(*events: dict[str, Any]) -> bytes:
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return chunked(*lines, b"data: [DONE]\n\n")


def whole(answer: dict[str, Any]) -> bytes:
    return chunked(json.dumps(answer).encode(), content_type="application/json")


def chat_answer(text: str, prompt: int, completion: int) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return whole({"id": f"id-{text}", "object": "chat.completion", "choices": [choice], **usage(prompt, completion)} |
        {"choices": [choice]})  # fmt: skip


@asynccontextmanager
async def model(*answers: bytes, slots: int = 1, **of: Any) -> AsyncIterator[tuple[Gateway, list[dict[str, Any]]]]:
    """A gateway to a model on llama.cpp with these answers, and the bodies that it gets."""
    asked: list[dict[str, Any]] = []
    async with raw_engine(*answers) as target:
        router = HandMadeRouter()
        router.publish(route(target, engine="llama.cpp", slots=slots, **of))
        async with gateway_of(router) as gateway:
            post = gateway._pool.post

            async def noted(target: Any, path: Any, query: Any, headers: Any, body: bytes) -> Any:
                asked.append(json.loads(body))
                return await post(target, path, query, headers, body)

            gateway._pool.post = noted  # type: ignore[method-assign]  # only this gateway's requests are noted
            yield gateway, asked


async def ask(gateway: Gateway, path: str, body: dict[str, Any]) -> Said:
    return await call(gateway, path, json.dumps(body).encode())


async def test_two_choices_of_one_slot_are_one_answer() -> None:
    async with model(chat_answer("a", 7, 3), chat_answer("b", 7, 5)) as (gateway, asked):
        said = await ask(gateway, CHATS, CHAT | {"n": 2, "seed": 4})
    assert said.status == 200
    assert [(each["index"], each["message"]["content"]) for each in said.json["choices"]] == [(0, "a"), (1, "b")]
    assert said.json["usage"] == {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15}
    assert [(each["n"], each["seed"]) for each in asked] == [(1, 4), (1, 5)]


async def test_a_part_has_as_many_choices_as_there_are_slots() -> None:
    two = stream(event(1, "b", end=True), event(0, "a", end=True), usage(14, 6))
    async with model(two, chat_answer("c", 7, 4), slots=2) as (gateway, asked):
        said = await ask(gateway, CHATS, CHAT | {"n": 3})
    assert [each["message"]["content"] for each in said.json["choices"]] == ["a", "b", "c"]
    assert [each["index"] for each in said.json["choices"]] == [0, 1, 2]
    assert said.json["usage"] == {"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17}
    assert [each["n"] for each in asked] == [2, 1]


async def test_as_many_choices_as_slots_are_one_request() -> None:
    both = stream(event(0, "a", end=True), event(1, "b", end=True), usage(14, 6))
    async with model(both, slots=2) as (gateway, asked):
        said = await ask(gateway, CHATS, CHAT | {"n": 2})
    assert len(said.json["choices"]) == 2 and len(asked) == 1


@pytest.mark.parametrize("wants_usage", [True, False])
async def test_a_stream_of_several_parts_has_one_id_one_usage_and_one_end(wants_usage: bool) -> None:
    ends = ((usage(7, 3),), (usage(7, 4),)) if wants_usage else ((), ())
    parts = [stream(event(0, "a1"), event(0, "a2", end=True), *ends[0]), stream(event(0, "b", end=True), *ends[1])]
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    async with model(*parts) as (gateway, _):
        said = await ask(gateway, CHATS, CHAT | {"n": 2, "stream": True} | options)
    lines = said.body.decode().strip().split("\n\n")
    assert lines.pop() == "data: [DONE]" and "data: [DONE]" not in lines
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    if wants_usage:
        last = events.pop()
        assert last["usage"] == {"prompt_tokens": 7, "completion_tokens": 7, "total_tokens": 14}
        assert last["choices"] == []
    assert [(each["choices"][0]["index"], each["choices"][0]["delta"]["content"]) for each in events] == [
        (0, "a1"), (0, "a2"), (1, "b")
    ]  # fmt: skip
    assert {each["id"] for each in events} == {"id-a"}
    assert (said.headers[b"content-type"], said.status) == (b"text/event-stream", 200)


async def test_the_choices_of_several_prompts_follow_each_other() -> None:
    first = stream(*(event(n, text, is_text=True, end=True) for n, text in enumerate(("a0", "b0"))), usage(7, 2))
    second = stream(*(event(n, text, is_text=True, end=True) for n, text in enumerate(("a1", "b1"))), usage(7, 2))
    async with model(first, second) as (gateway, _):
        said = await ask(gateway, TEXTS, {"model": "m", "prompt": ["a", "b"], "n": 2, "best_of": 2})
    assert [each["text"] for each in said.json["choices"]] == ["a0", "a1", "b0", "b1"]
    assert said.json["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}


async def test_an_error_of_a_part_ends_the_answer() -> None:
    refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 28\r\nContent-Type: application/json\r\n\r\n"
    refused += b'{"error":{"message": "bad"}}'
    async with model(chat_answer("a", 7, 3), refused) as (gateway, _):
        said = await ask(gateway, CHATS, CHAT | {"n": 2})
    assert said.status == 400 and "bad" in said.json["error"]["message"]
    async with model(stream(event(0, "a", end=True)), refused) as (gateway, _):
        said = await ask(gateway, CHATS, CHAT | {"n": 2, "stream": True})
    assert said.status == 200 and b'"error"' in said.body.rpartition(b"data: ")[2] and b"[DONE]" not in said.body


async def test_each_part_has_the_limit_of_tokens() -> None:
    async with model(chat_answer("a", 7, 3), chat_answer("b", 7, 5), max_output_tokens=9) as (gateway, asked):
        assert (await ask(gateway, CHATS, CHAT | {"n": 2})).status == 200
    assert [each["max_tokens"] for each in asked] == [9, 9]


async def test_many_prompts_of_a_part_are_divided_further() -> None:
    def texts(letters: str) -> bytes:
        ends = [event(n, letter, is_text=True, end=True) for n, letter in enumerate(letters)]
        return stream(*ends, usage(len(letters), len(letters)))

    letters = "abcdefghij"
    answers = [texts(letters[:8]), texts(letters[8:]), texts(letters[:8].upper()), texts(letters[8:].upper())]
    async with model(*answers) as (gateway, asked):
        said = await ask(gateway, TEXTS, {"model": "m", "prompt": list(letters), "n": 2})
    assert "".join(each["text"] for each in said.json["choices"]) == "aAbBcCdDeEfFgGhHiIjJ"
    assert [each["index"] for each in said.json["choices"]] == list(range(20))
    assert [len(each["prompt"]) for each in asked] == [8, 2, 8, 2]
