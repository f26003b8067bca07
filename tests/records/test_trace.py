"""The place of a request in a trace, and which requests are traced."""

from __future__ import annotations

import pytest

from xinference.records.trace import Sampling, sampling_of

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_the_span_of_a_request_is_below_that_of_its_client() -> None:
    span = Sampling().span(f"00-{TRACE}-{PARENT}-01".encode())
    assert (span.trace_id, span.parent_id, span.sampled) == (TRACE, PARENT, True)
    assert span.header == f"00-{TRACE}-{span.span_id}-01".encode() and span.span_id != PARENT
    assert span.text == f"{TRACE}-{span.span_id}-{PARENT}"


def test_a_client_that_does_not_trace_is_followed() -> None:
    span = Sampling().span(f"00-{TRACE}-{PARENT}-00".encode())
    assert not span.sampled and span.text == "" and span.header.endswith(b"-00")
    assert Sampling(follows_parent=False).span(f"00-{TRACE}-{PARENT}-00".encode()).sampled


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"nonsense",
        f"ff-{TRACE}-{PARENT}-01".encode(),
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE.upper()}-{PARENT}-01".encode(),
        f"00-{TRACE}-{PARENT}-01-more".encode(),
        f"00-{TRACE}-{PARENT}-01\r\nx: y".encode(),
    ],
)
def test_a_wrong_header_begins_a_trace(header: bytes) -> None:
    span = Sampling().span(header)
    assert span.trace_id != TRACE and len(span.trace_id) == 32 and span.parent_id == "" and span.sampled


def test_a_later_version_of_the_header_is_read() -> None:
    assert Sampling().span(f"01-{TRACE}-{PARENT}-01-more".encode()).trace_id == TRACE


def test_a_share_of_the_traces_is_chosen_by_their_ids() -> None:
    half = Sampling(0.5)
    chosen = sum(half.span(b"").sampled for _ in range(2000))
    assert 800 < chosen < 1200
    low, high = f"00-{'1' * 16}{'0' * 15}1-{PARENT}-00", f"00-{'1' * 16}{'f' * 16}-{PARENT}-00"
    each = Sampling(0.5, follows_parent=False)
    assert each.span(low.encode()).sampled and not each.span(high.encode()).sampled
    assert not Sampling(0.0).span(b"").sampled


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("env", "sampling"),
    [
        ({}, None),
        (ENDPOINT, Sampling(1.0, True)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, Sampling(1.0, True)),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, None),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, None),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER": "always_off"}, Sampling(0.0, False)),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, Sampling(0.25, False)),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}, Sampling(1.0, True)),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "x"}, Sampling(1.0, False)),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"}, Sampling(1.0, False)),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER": "unheard"}, Sampling(1.0, True)),
    ],
)
def test_the_variables_of_opentelemetry(env: dict[str, str], sampling: Sampling | None) -> None:
    assert sampling_of(env) == sampling
