from __future__ import annotations

import json
from typing import Any

import pytest

from xinference.gateway.http.asgi import Message
from xinference.gateway.token_usage import KEPT_BYTES, TokenMeter, total

LONG = "word " * KEPT_BYTES


async def metered(*pieces: bytes, status: int = 200) -> tuple[TokenMeter, list[Message]]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    meter = TokenMeter(send)
    await meter.send({"type": "http.response.start", "status": status, "headers": []})
    for piece in pieces:
        await meter.send({"type": "http.response.body", "body": piece, "more_body": True})
    await meter.send({"type": "http.response.body", "body": b"", "more_body": False})
    return meter, sent


def event(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, 12),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens": 7}, 12),
        ({"prompt_tokens": 5, "total_tokens": 5}, 5),
        ({"input_tokens": 5, "output_tokens": 7}, 12),
        ({"input_tokens": 5, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 7, "total_tokens": 12}, 12),
        ({"cache_read_input_tokens": 3, "input_tokens": 2, "output_tokens": 7}, 12),
    ],
)
@pytest.mark.parametrize("first", [True, False])
async def test_a_whole_answers_usage_is_read_wherever_it_stands(usage: Any, tokens: int, first: bool) -> None:
    document = {"usage": usage, "data": LONG} if first else {"choices": LONG, "usage": usage}
    meter, _ = await metered(json.dumps(document).encode())
    assert meter.tokens(10_000) == tokens


async def test_a_streams_usage_is_read_from_its_end_however_it_is_cut() -> None:
    chunks = [event({"choices": [{"delta": {"content": "x"}}]}) for _ in range(1000)]
    usage = {"prompt_tokens": 5, "completion_tokens": 1000, "total_tokens": 1005}
    whole = b"".join([*chunks, event({"choices": [], "usage": usage}), b"data: [DONE]\n\n"])
    meter, _ = await metered(*(whole[at : at + 777] for at in range(0, len(whole), 777)))
    assert meter.tokens(10) == 1005


async def test_anthropics_stream_has_the_prompt_at_its_beginning_and_the_answer_at_its_end() -> None:
    begin = event({"type": "message_start", "message": {"usage": {"input_tokens": 40, "output_tokens": 1}}})
    deltas = [event({"type": "content_block_delta", "delta": {"text": LONG}})]
    end = event({"type": "message_delta", "usage": {"output_tokens": 60}})
    meter, _ = await metered(begin, *deltas, end)
    assert meter.tokens(10) == 100


async def test_without_usage_an_event_is_a_token_and_the_prompt_four_bytes() -> None:
    meter, _ = await metered(*(event({"choices": []}) for _ in range(30)))
    assert meter.tokens(400) == 130


async def test_text_that_a_model_writes_is_not_taken_for_usage() -> None:
    lie = 'I say "usage": {"total_tokens": 1}'
    meter, _ = await metered(event({"choices": [{"delta": {"content": lie}}]}), event({"usage": None}))
    assert meter.tokens(400) == 102


async def test_a_refusal_costs_nothing_and_an_answer_passes_unchanged() -> None:
    meter, sent = await metered(b'{"error":1}', status=400)
    assert meter.tokens(4000) == 0
    assert [message.get("body") for message in sent] == [None, b'{"error":1}', b""]


def test_usage_without_numbers_tells_nothing() -> None:
    assert total(b'{"usage":{"prompt_tokens":-1}}', b"") is None


async def test_llama_cpps_own_counts_are_read_where_there_is_no_usage() -> None:
    document = {"content": LONG, "tokens_predicted": 30, "tokens_evaluated": 12, "timings": {"predicted_n": 30}}
    meter, _ = await metered(json.dumps(document).encode())
    assert meter.tokens(4000) == 42
