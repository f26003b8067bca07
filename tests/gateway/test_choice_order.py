"""The choices of a streamed chat begin in their order, whatever the order of the engine is."""

from __future__ import annotations

import json

from xinference.gateway.choice_order import ChoiceOrder

DONE = b"data: [DONE]\n\n"


def event(index: int, text: str) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"index": index, "delta": {"content": text}}]}).encode()


USAGE = b'data: {"choices":[],"usage":{"total_tokens":1}}\n\n'
ERROR = b'data: {"error":{"message":"died"}}\n\n'


def test_a_choice_waits_until_those_before_it_have_begun() -> None:
    order = ChoiceOrder(3)
    assert order(event(2, "c")) == b""
    assert order(event(1, "b") + event(2, "C")) == b""
    assert order(event(0, "a")) == event(0, "a") + event(1, "b") + event(2, "c") + event(2, "C")
    assert order(event(2, "d") + event(0, "e")) == event(2, "d") + event(0, "e")


def test_events_in_order_pass_at_once() -> None:
    order = ChoiceOrder(2)
    assert order(event(0, "a") + event(0, "b")) == event(0, "a") + event(0, "b")
    assert order(event(1, "c") + USAGE + DONE) == event(1, "c") + USAGE + DONE


def test_what_waits_comes_before_the_end() -> None:
    for end in (USAGE + DONE, DONE, ERROR):
        order = ChoiceOrder(3)
        assert order(event(2, "c") + event(1, "b") + end) == event(1, "b") + event(2, "c") + end
