"""The stream of changes, the same in both clients."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.canned import Answer, Canned
from tests.client.either import Either
from xinference.client import Client
from xinference.client.watch_events import WatchEvents
from xinference.errors import Problem

STREAM = (
    'retry: 2000\n\nid: a-1\nevent: snapshot\ndata: {"models":[]}\n\n: still here\n\n'
    'id: a-2\r\nevent: model\r\ndata: {"model_uid":"m\u2028é"}\r\n\r\nevent: end\ndata: {"reason":"stopping"}\n\n'
).encode()
EVENTS = [
    {"id": "a-1", "event": "snapshot", "data": {"models": []}},
    {"id": "a-2", "event": "model", "data": {"model_uid": "m\u2028é"}},
    {"id": None, "event": "end", "data": {"reason": "stopping"}},
]


@pytest.mark.parametrize("step", [1, 2, 7, len(STREAM)])
def test_the_events_are_the_same_in_any_chunks(step: int) -> None:
    decoder = WatchEvents()
    found = [event for at in range(0, len(STREAM), step) for event in decoder.feed(STREAM[at : at + step])]
    assert found == EVENTS and decoder.complete()


def test_a_stream_is_continued_after_an_event(canned: Canned, connect: Callable[..., Either]) -> None:
    canned.answers["GET", "/v1/watch"] = Answer(STREAM, content_type="text/event-stream")
    either = connect(canned.url, "sk-key")
    assert either("watch", last_event_id="a-0") == EVENTS
    asked = canned.asked[-1]
    assert (asked.query, asked.headers["last-event-id"]) == ("", "a-0")
    assert asked.headers["authorization"] == "Bearer sk-key"
    assert either("watch") == EVENTS
    assert "last-event-id" not in canned.asked[-1].headers


def test_a_stream_without_its_end_is_a_problem(canned: Canned) -> None:
    canned.answers["GET", "/v1/watch"] = Answer(STREAM[:60], content_type="text/event-stream")
    with pytest.raises(Problem, match="closed the connection"):
        list(Client(canned.url, check=False).watch())
