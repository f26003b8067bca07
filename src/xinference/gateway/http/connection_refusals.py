"""The refusals of connections, and of bytes that never become a request."""

from __future__ import annotations

from xinference.error_codes import Code
from xinference.gateway.http.connection_limits import MIN_SPEED, ConnectionLimits
from xinference.protocol.errors import Refusal


def head_too_large(maximum: int) -> Refusal:
    """`maximum`: bytes of a request line and the headers together."""
    return Refusal(
        Code.HEADERS_TOO_LARGE,
        f"The request line and the headers of a request may have at most {maximum} bytes together.",
        hint="Send fewer or shorter headers; long text belongs in the request's body.",
    )


def too_many_headers(maximum: int) -> Refusal:
    return Refusal(Code.HEADERS_TOO_LARGE, f"A request may have at most {maximum} headers.")


def head_too_slow(limits: ConnectionLimits) -> Refusal:
    return _too_slow(f"The head of the request was not complete within {limits.head_seconds:g} seconds.")


def body_too_slow(limits: ConnectionLimits) -> Refusal:
    return _too_slow(
        f"The body of the request came too slowly: it may pause for {limits.body_seconds:g} seconds, and needs "
        f"{MIN_SPEED} bytes a second on average."
    )


def _too_slow(cause: str) -> Refusal:
    return Refusal(Code.REQUEST_TIMEOUT, cause, hint="Send the whole request at once.")


def too_many_connections() -> Refusal:
    return Refusal(Code.TOO_MANY_CONNECTIONS, "The server has too many connections.", retry_after=1)
