from __future__ import annotations

import json
from typing import Any

from xinference.engines.llama_cpp.dialect import DIALECT
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.request_check import check


def exchange(content: Any) -> Any:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}]
    body = json.dumps({"model": "m", "max_tokens": 5, "messages": messages}).encode()
    return DIALECT.exchange(check(DATA_PATHS["/v1/messages"].decoder, body), "m")


def delta(text: str) -> bytes:
    data = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return b"event: content_block_delta\ndata: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def test_an_answer_does_not_repeat_its_given_beginning() -> None:
    answer = {"content": [{"type": "text", "text": "Hello my name"}], "stop_reason": "end_turn"}
    for content in ("Hello", [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]):
        rewritten = exchange(content).answer(json.dumps(answer).encode())
        assert json.loads(rewritten)["content"] == [{"type": "text", "text": " my name"}]


def test_an_answer_that_begins_in_another_way_stays_whole() -> None:
    answer = {"content": [{"type": "text", "text": "Good day"}]}
    assert json.loads(exchange("Hello").answer(json.dumps(answer).encode())) == answer
    assert exchange("Hello").events(delta("Good") + delta(" day")) == delta("Good") + delta(" day")
    assert b"Good" in exchange("Hello").events(b"event: ping\ndata: {}\n\n" + delta("Good"))


def test_a_stream_does_not_repeat_it_however_it_is_cut() -> None:
    for pieces in (["Hello my", " name"], ["Hel", "lo", " my name"], ["Hello", " my name"]):
        rewrite = exchange("Hello").events
        sent = b"".join(rewrite(delta(piece)) for piece in pieces)
        texts = [json.loads(line[6:])["delta"]["text"] for line in sent.split(b"\n") if line.startswith(b"data: ")]
        assert "".join(texts) == " my name"


def test_a_question_at_the_end_needs_no_rewrite() -> None:
    body = json.dumps({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}).encode()
    rewrites = DIALECT.exchange(check(DATA_PATHS["/v1/messages"].decoder, body), "m")
    assert (rewrites.body, rewrites.answer, rewrites.events) == (None, None, None)
