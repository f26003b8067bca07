"""The trace of a request: its headers reach the engine, and those of the engine the client."""

from __future__ import annotations

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import CHAT, router_of, served
from xinference.records.trace import Sampling

pytestmark = pytest.mark.process

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HEADERS = {"traceparent": PARENT, "tracestate": "a=b", "x-request-id": "mine"}


async def test_a_server_without_traces_passes_the_headers_on_unchanged() -> None:
    answered = {"traceresponse": "00-b", "tracestate": "c=d", "other": "e"}
    async with (
        start_fake_engine(echo=True, headers=answered) as engine,
        served(router_of(engine)) as gateway,
        gateway.http.post(f"{gateway.url}/v1/chat/completions", json=CHAT, headers=HEADERS) as answer,
    ):
        got = (await answer.json())["headers"]
        assert answer.headers["traceresponse"] == "00-b" and answer.headers["tracestate"] == "c=d"
        assert "other" not in answer.headers
    assert got | HEADERS == got


async def test_the_span_of_the_server_is_the_parent_of_the_engines() -> None:
    async with start_fake_engine(echo=True) as engine, served(router_of(engine)) as gateway:
        gateway.gateway.recorder.sampling = Sampling()
        async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=CHAT, headers=HEADERS) as answer:
            got = (await answer.json())["headers"]
    trace, span = got["traceparent"].split("-")[1:3]
    assert trace == PARENT.split("-")[1] and span != PARENT.split("-")[2]
    assert got["tracestate"] == "a=b"
