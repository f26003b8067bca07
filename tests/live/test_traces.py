"""A request's trace: through the gateway to an engine and back, and its span at a receiver of OTLP."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.home import Home
from tests.support.otlp_receiver import Receiver, attributes_of, otlp_receiver
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome

pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter", reason="the extra `otel` is not installed")
pytestmark = pytest.mark.live

CHAT = "/v1/chat/completions"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=value", "x-request-id": "mine"}
SECRET = "a text that no span may have"


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two gateway processes"])
def traced(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any]
) -> Iterator[tuple[ScriptedHome, Receiver, Path]]:
    """A server that sends its traces; its model ``m`` notes what the engine gets and answers a trace of its own."""
    folder = tmp_path_factory.mktemp("home")
    with otlp_receiver() as receiver:
        env = {
            "XINFERENCE_GATEWAY_WORKERS": str(request.param),
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        home = ScriptedHome(folder, free_port(), env, Path(tiny["model_path"]))
        home.start()
        script = {"record": str(folder / "record"), "headers": {"traceresponse": "00-of-the-engine", "Secret": "no"}}
        answer = home.post_launch("m", script=script)
        assert answer.status_code == 200, answer.text
        try:
            yield home, receiver, folder / "record"
        finally:
            home.clean_up()


def spans_of(receiver: Receiver, **wanted: Any) -> list[Any]:
    return [span for span in receiver.spans if wanted.items() <= attributes_of(span).items()]


def test_a_span_arrives_with_the_names_of_the_conventions(traced: tuple[ScriptedHome, Receiver, Path]) -> None:
    home, receiver, record = traced
    receiver.spans.clear()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": SECRET}]}
    answer = httpx2.post(home.url + CHAT, json=body, headers=CLIENT, timeout=30)
    assert answer.status_code == 200 and answer.headers["traceresponse"] == "00-of-the-engine"
    assert "secret" not in answer.headers
    until("the span arrives", lambda: len(receiver.spans) == 1)
    (span,) = receiver.spans
    known = attributes_of(span)
    assert span.name == "chat m" and span.trace_id.hex() == TRACE and span.parent_span_id.hex() == PARENT
    assert known["gen_ai.operation.name"] == "chat" and known["gen_ai.provider.name"] == "xinference"
    assert known["gen_ai.request.model"] == known["gen_ai.response.model"] == "m"
    assert (known["gen_ai.usage.input_tokens"], known["gen_ai.usage.output_tokens"]) == (7, 5)
    assert known["server.port"] == home.port and known["http.response.status_code"] == 200
    assert "error.type" not in known and SECRET not in str(span)
    (event,) = span.events
    assert span.start_time_unix_nano < event.time_unix_nano <= span.end_time_unix_nano
    assert receiver.resources[-1]["service.name"] == "xinference"
    assert receiver.resources[-1]["deployment.environment.name"] == "test"

    got = json.loads(record.read_text().splitlines()[-1])["headers"]
    assert got["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01", "the engine's spans are below this one"
    assert got["tracestate"] == "vendor=value" and got["x-request-id"] == "mine"


def test_a_request_without_a_trace_begins_one_and_a_client_that_does_not_trace_is_followed(
    traced: tuple[ScriptedHome, Receiver, Path],
) -> None:
    home, receiver, record = traced
    receiver.spans.clear()
    body = {"model": "m", "messages": []}
    off = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    for model, headers in (("m", off), ("m", {}), ("unknown", {})):
        messages = [{"role": "user", "content": "hi"}]
        httpx2.post(home.url + CHAT, json=body | {"model": model, "messages": messages}, headers=headers, timeout=30)
    until("both spans arrive", lambda: len(receiver.spans) == 2)
    (failed,) = spans_of(receiver, **{"error.type": "model_not_found"})
    assert failed.name == "chat" and failed.status.code == 2 and failed.parent_span_id == b""
    (begun,) = (span for span in receiver.spans if span is not failed)
    assert begun.trace_id not in (failed.trace_id, bytes.fromhex(TRACE)) and begun.parent_span_id == b""
    sent = [json.loads(line)["headers"]["traceparent"] for line in record.read_text().splitlines()[-2:]]
    assert sent[0].endswith("-00") and sent[1] == f"00-{begun.trace_id.hex()}-{begun.span_id.hex()}-01"


def test_the_last_spans_are_sent_when_the_server_stops(traced: tuple[ScriptedHome, Receiver, Path]) -> None:
    home, receiver, _ = traced
    receiver.spans.clear()
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(3):
        assert httpx2.post(home.url + CHAT, json=body, timeout=30).status_code == 200
    assert home.server is not None
    home.server.send_signal(signal.SIGTERM)
    assert home.server.wait(60) == 0
    assert len(receiver.spans) == 3
    home.start()


def test_a_real_engine_answers_a_traced_request(make_home: Callable[..., Home], tiny: dict[str, Any]) -> None:
    with otlp_receiver() as receiver:
        home = make_home(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{receiver.url}/v1/traces", OTEL_SERVICE_NAME="mine")
        home.serve()
        answer = home.launch(**tiny | {"n_ctx": 512, "model_uid": "tiny"})
        assert answer.status_code == 200, answer.text
        body = {"model": "tiny", "prompt": "Once", "max_tokens": 6, "stream": True}
        answer = httpx2.post(f"{home.url}/v1/completions", json=body, headers=CLIENT, timeout=60)
        assert answer.status_code == 200
        until("the span arrives", lambda: len(receiver.spans) == 1)
        known = attributes_of(receiver.spans[0])
        assert receiver.spans[0].name == "text_completion tiny" and known["gen_ai.usage.output_tokens"] == 6
        assert receiver.resources[-1]["service.name"] == "mine"


def test_a_receiver_that_is_gone_costs_no_request(make_home: Callable[..., Home], tiny: dict[str, Any]) -> None:
    home = make_home(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    server = home.serve()
    assert home.launch(**tiny | {"n_ctx": 512, "model_uid": "tiny"}).status_code == 200
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 2}
    for _ in range(5):
        assert httpx2.post(f"{home.url}/v1/completions", json=body, timeout=60).status_code == 200
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
