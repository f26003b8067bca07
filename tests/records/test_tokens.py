"""The tokens of an answer are read from the report of each API and engine, and from nothing that a model writes."""

from __future__ import annotations

import json
from typing import Any

from tests.support.cases import in_one_test
from xinference.records.tokens import SEARCHED_BYTES, Tokens, read_tokens

LONG = "word " * SEARCHED_BYTES


def event(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def found(tokens: Tokens | None) -> tuple[int, int | None, int] | None:
    return None if tokens is None else (tokens.prompt, tokens.cached, tokens.output)


@in_one_test(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, (5, None, 7)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens": 7}, (5, 4, 7)),
        ({"prompt_tokens": 5, "prompt_tokens_details": None, "completion_tokens": 7}, (5, None, 7)),
        (
            {"completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 3}, "prompt_tokens": 5},
            (5, None, 7),
        ),
        ({"prompt_tokens": 5, "total_tokens": 5}, (5, None, 0)),
        ({"total_tokens": 5}, (5, None, 0)),
        ({"input_tokens": 5, "output_tokens": 7}, (5, None, 7)),
        (
            {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 7, "total_tokens": 12},
            (5, 1, 7),
        ),
        ({"cache_read_input_tokens": 3, "input_tokens": 2, "output_tokens": 7}, (5, 3, 7)),
        (
            {"cache_creation_input_tokens": 4, "cache_read_input_tokens": 0, "input_tokens": 2, "output_tokens": 7},
            (6, 0, 7),
        ),
    ],
)
@in_one_test("first", [True, False])
@in_one_test("indent", [None, 2])
def test_a_whole_answers_usage_is_read_wherever_it_stands(
    usage: Any, tokens: tuple[int, int | None, int], first: bool, indent: int | None
) -> None:
    document = {"usage": usage, "data": LONG} if first else {"choices": LONG, "usage": usage}
    assert found(read_tokens(json.dumps(document, indent=indent).encode())) == tokens


def test_a_streams_usage_is_in_its_last_two_pieces() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1000, "total_tokens": 1005}
    last = event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    assert found(read_tokens(event({"choices": [{"delta": {"content": "x"}}]}), last)) == (5, None, 1000)


def test_anthropics_stream_has_the_prompt_at_its_beginning_and_the_answer_at_its_end() -> None:
    begin = event({"type": "message_start", "message": {"usage": {"input_tokens": 40, "output_tokens": 1}}})
    end = event({"type": "message_delta", "usage": {"output_tokens": 60}}) + event({"type": "message_stop"})
    assert found(read_tokens(begin, end)) == (40, None, 60)
    cached = {"input_tokens": 10, "cache_read_input_tokens": 30, "output_tokens": 1}
    begin = event({"type": "message_start", "message": {"usage": cached}})
    assert found(read_tokens(begin, end)) == (40, 30, 60)
    assert found(read_tokens(begin + end, begin + end)) == (40, 30, 60), "a short stream in one piece"
    twice = event({"type": "message_delta", "usage": cached | {"output_tokens": 60}})
    assert found(read_tokens(begin, twice)) == (40, 30, 60)


def test_an_answer_whose_usage_precedes_its_data_may_come_in_pieces() -> None:
    first = b'{"usage":{"prompt_tokens":9,"total_tokens":9},"data":[{"embedding":[' + b"0.1," * 9000
    assert found(read_tokens(first, b"0.1," * 9000 + b"0.1]}]}")) == (9, None, 0)


def test_llama_cpps_timings_are_read_where_there_is_no_usage() -> None:
    timings = {"cache_n": 30, "prompt_n": 4, "prompt_ms": 12.5, "predicted_n": 35, "predicted_per_second": 5e1}
    last = event({"choices": [{"finish_reason": "stop", "delta": {}}], "timings": timings}) + b"data: [DONE]\n\n"
    tokens = read_tokens(b"", last)
    assert found(tokens) == (34, 30, 35) and tokens is not None and tokens.of_one_choice
    usage = {"prompt_tokens": 34, "completion_tokens": 35}
    last = event({"choices": [], "usage": usage, "timings": timings}) + b"data: [DONE]\n\n"
    assert found(read_tokens(b"", last)) == (34, 30, 35)


def test_llama_cpps_own_counts_are_read_where_there_is_no_usage() -> None:
    document = {"content": LONG, "tokens_predicted": 30, "tokens_evaluated": 12, "timings": {"predicted_n": None}}
    assert found(read_tokens(json.dumps(document).encode())) == (12, None, 30)


def test_text_that_a_model_writes_is_not_taken_for_usage() -> None:
    lie = 'I say "usage": {"total_tokens": 1} and "timings": {"predicted_n": 3} and "tokens_predicted": 5'
    pieces = event({"choices": [{"delta": {"content": lie}}]}) + event({"usage": None})
    assert read_tokens(pieces, pieces) is None
    call = {"type": "tool_use", "input": {"usage": {"input_tokens": 900, "output_tokens": 900}}}
    whole = {"content": [call], "usage": {"input_tokens": 5, "output_tokens": 7}}
    assert found(read_tokens(json.dumps(whole).encode())) == (5, None, 7)


@in_one_test(
    "usage",
    [
        b'{"prompt_tokens":-1}', b'{"prompt_tokens":1.5}', b'{"prompt_tokens":"5"}', b"{}", b"null", b"[]", b"{{{{",
        b'{"prompt_tokens":99999999999999999999}', b'{"prompt_tokens":5,', b'{"a":{"b":{"c":1}},"prompt_tokens":5}',
        b"{" + b"{}" * 600, b'{"prompt_tokens_details":[]}',
    ],
)  # fmt: skip
def test_a_report_that_cannot_be_read_tells_nothing(usage: bytes) -> None:
    assert read_tokens(b'{"usage":' + usage + b"}") is None
    assert read_tokens(b"", b'data: {"usage":' + usage + b"}\n\n") is None
