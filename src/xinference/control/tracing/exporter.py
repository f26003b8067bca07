"""Sends the spans of requests by OTLP, from threads and off the data path.

Needs the extra ``xinference[otel]``. The settings are OpenTelemetry's own variables, which the library reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from xinference import __version__
from xinference.config import Settings
from xinference.control.tracing import conventions
from xinference.records.record import Record

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

#: Records whose spans are not made yet; of more, the oldest are dropped.
MAX_RECORDS = 5000
#: Seconds between two times that spans are made, and for the last spans of a server that stops.
PAUSE_SECONDS, CLOSE_SECONDS = 1.0, 5.0
_SECOND = 1_000_000_000
MISSING = (
    "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the packages that send traces are not installed: no request is traced. "
    "Install them with `pip install 'xinference[otel]'`."
)


def is_installed() -> bool:
    """Whether the packages of the extra are installed."""
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False


class SpanSender:
    """Makes a span of each record that has a place in a trace."""

    def __init__(self, settings: Settings, exporter: SpanExporter | None = None) -> None:
        """`exporter`: in place of the one that OpenTelemetry's variables describe."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._settings = settings
        own = Resource({SERVICE_NAME: "xinference", SERVICE_VERSION: __version__})
        # Resource.create reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, which have precedence.
        self._resource = own.merge(_from_env(Resource.create()))
        # Its queue is bounded: if nobody takes the spans, the newest are dropped.
        # Any: its `shutdown` has no types.
        self._processor: Any = BatchSpanProcessor(exporter or OTLPSpanExporter())

        self._records: deque[Record] = deque(maxlen=MAX_RECORDS)

    def note(self, record: Record) -> None:
        """Keep the record of a traced request until its span is made."""
        if record.trace:
            self._records.append(record)

    async def run(self) -> None:
        """Make the spans of the records each second, in a thread, until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            await asyncio.to_thread(self.make_spans)

    async def close(self) -> None:
        """Send what is left, for at most `CLOSE_SECONDS`."""
        try:
            await asyncio.wait_for(asyncio.to_thread(self._end), CLOSE_SECONDS)
        except TimeoutError:
            log.warning("the last traces were not taken within %g s", CLOSE_SECONDS)

    def make_spans(self) -> None:
        """Give the library the spans of all records; it sends them."""
        for _ in range(len(self._records)):
            self._processor.on_end(self._span(self._records.popleft()))

    def _end(self) -> None:
        self.make_spans()
        self._processor.shutdown()

    def _span(self, record: Record) -> Any:
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        trace_id, span_id, parent_id = record.trace.split("-")

        def context(span: str, *, is_remote: bool) -> SpanContext:
            return SpanContext(int(trace_id, 16), int(span, 16), is_remote, TraceFlags(TraceFlags.SAMPLED))

        started = int(record.started * _SECOND)
        failed = conventions.error_type(record)
        events = []
        if record.first_token is not None:
            events.append(Event(conventions.FIRST_TOKEN, timestamp=started + int(record.first_token * _SECOND)))
        return ReadableSpan(
            conventions.span_name(record),
            context=context(span_id, is_remote=False),
            parent=context(parent_id, is_remote=True) if parent_id else None,
            resource=self._resource,
            attributes=conventions.attributes(record, self._settings.host, self._settings.port),
            events=events,
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR, failed) if failed else Status(StatusCode.UNSET),
            start_time=started,
            end_time=started + int(record.total * _SECOND),
        )


def _from_env(resource: Any) -> Any:
    """A resource without the name that the library gives to an unnamed service."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    named = {name: value for name, value in resource.attributes.items() if name != SERVICE_NAME}
    service = str(resource.attributes.get(SERVICE_NAME, ""))
    return Resource(named if service.startswith("unknown_service") else {**named, SERVICE_NAME: service})
