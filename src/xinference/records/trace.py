"""The place of a request in a trace, by W3C's Trace Context, and which requests are traced. Pure.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

#: Version, trace id, span id, flags. Versions after 00 may have further fields.
_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LARGEST = 2**64


@dataclass(frozen=True, slots=True)
class Span:
    """The span of one request. Ids are in hexadecimal digits."""

    trace_id: str
    span_id: str
    parent_id: str
    """The span of the client; empty: the client has none."""
    sampled: bool

    @property
    def header(self) -> bytes:
        """The value of ``traceparent`` for the engine."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}".encode()

    @property
    def text(self) -> str:
        """The ids for a record; empty: the request is not traced."""
        return f"{self.trace_id}-{self.span_id}-{self.parent_id}" if self.sampled else ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which requests are traced."""

    share: float = 1.0
    """The share of the traces, 0 to 1."""
    follows_parent: bool = True
    """A request with a ``traceparent`` is traced if its client says so."""

    def span(self, traceparent: bytes) -> Span:
        """The span of a new request; an empty or wrong `traceparent` begins a trace."""
        match = _PARENT.fullmatch(traceparent)
        if match is None or (match[1] == b"00" and match[5]):
            trace_id = secrets.token_hex(16)
            return Span(trace_id, secrets.token_hex(8), "", self._is_sampled(trace_id))
        trace_id = match[2].decode()
        sampled = bool(int(match[4], 16) & 1) if self.follows_parent else self._is_sampled(trace_id)
        return Span(trace_id, secrets.token_hex(8), match[3].decode(), sampled)

    def _is_sampled(self, trace_id: str) -> bool:
        """By the last 64 bits of the trace's id, as OpenTelemetry's libraries do it."""
        return int(trace_id[16:], 16) < self.share * _LARGEST


#: The values of ``OTEL_TRACES_SAMPLER``: share (None: that of the argument), and whether clients decide.
_SAMPLERS: Mapping[str, tuple[float | None, bool]] = {
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}


def sampling_of(env: Mapping[str, str]) -> Sampling | None:
    """The sampling that OpenTelemetry's variables ask for; None: no request is traced.

    An unknown sampler, or a share that is no number from 0 to 1, is that of the specification: all traces.
    """
    endpoint = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint or env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    share, follows_parent = _SAMPLERS.get(env.get("OTEL_TRACES_SAMPLER", "").lower(), (1.0, True))
    if share is None:
        try:
            share = float(env.get("OTEL_TRACES_SAMPLER_ARG", "1"))
        except ValueError:
            share = 1.0
    return Sampling(share if 0 <= share <= 1 else 1.0, follows_parent)
