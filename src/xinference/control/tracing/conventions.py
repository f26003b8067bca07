"""The names of OpenTelemetry's semantic conventions for generative AI. They are in development, and may change here.

https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

from collections.abc import Mapping

from xinference.records.record import Record

#: Attributes may be texts, numbers and booleans.
Value = str | int | float | bool
PROVIDER = "xinference"
#: Path -> operation; the names of the conventions where they have one.
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/anthropic/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/infill": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v1/reranking": "rerank",
    "/v2/rerank": "rerank",
    "/rerank": "rerank",
    "/v1/score": "rerank",
}
#: The name of the event at the first content of a stream.
FIRST_TOKEN = "gen_ai.first_token"  # noqa: S105 -- it is no password


def operation_of(path: str) -> str:
    """The operation of a path; that of another path is its last word."""
    return _OPERATIONS.get(path) or path.rpartition("/")[2]


def span_name(record: Record) -> str:
    """``{operation} {model}``."""
    return f"{operation_of(record.path)} {record.model}".strip()


def attributes(record: Record, host: str, port: int) -> dict[str, Value]:
    """The attributes of a request's span. None of them has a text of a prompt or an answer."""
    values: Mapping[str, Value | None] = {
        "gen_ai.operation.name": operation_of(record.path),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": record.model or None,
        "gen_ai.response.model": record.model if record.model and record.status == 200 else None,
        "gen_ai.request.stream": record.stream,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        # The conventions forbid an estimate.
        "gen_ai.usage.output_tokens": record.output_tokens if record.exact else None,
        "gen_ai.response.time_to_first_chunk": record.first_token,
        "server.address": host,
        "server.port": port,
        "http.request.method": "POST",
        "http.response.status_code": record.status,
        "url.path": record.path,
        "error.type": error_type(record),
        "xinference.request.id": record.request_id,
        "xinference.replica": record.replica or None,
        "xinference.node": record.node,
        "xinference.key.id": record.key_id or None,
        "xinference.client_left": record.client_left or None,
        "xinference.wait.load": record.wait_load or None,
        "xinference.wait.recovery": record.wait_recovery or None,
        "xinference.wait.permit": record.wait_permit or None,
        "xinference.wait.quota": record.wait_quota or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def error_type(record: Record) -> str | None:
    """The code of the error, or the status without a code; None: the request has succeeded."""
    if record.code:
        return str(record.code)
    return str(record.status) if record.status >= 400 else None
