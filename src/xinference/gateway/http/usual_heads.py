"""The common headers and paths of requests, and the headers that are dropped."""

from __future__ import annotations

import re

#: A header that offers another protocol, such as HTTP/2 by Java's client and TLS by Apache's. A server may pass over
#: it (RFC 9110, section 7.8); with it, the parser would take the request for one without a body.
_UPGRADE = re.compile(rb"\r\nupgrade:(?![ \t]*websocket\b)[^\r\n]*(?=\r\n)", re.IGNORECASE)
#: The names of headers that clients often send, by their usual spelling. `Expect` is none of them: it has an effect.
KNOWN_NAMES = {
    spelling.encode(): name.encode()
    for name in (
        *("host", "accept", "accept-encoding", "accept-language", "connection", "content-type", "content-length"),
        *("user-agent", "authorization", "x-request-id", "x-api-key", "anthropic-version", "traceparent"),
        *("x-stainless-lang", "x-stainless-package-version", "x-stainless-arch", "x-stainless-runtime"),
        *("x-stainless-runtime-version", "x-stainless-async", "x-stainless-retry-count", "x-stainless-read-timeout"),
        *("x-stainless-os", "x-stainless-timeout"),
    )
    for spelling in (name, name.title(), name.title().replace("-Os", "-OS").replace("-Id", "-ID"))
}
_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_.-]+)+")


def plain_path(url: bytes) -> str | None:
    """The path of a URL that consists of nothing else, without an escape; None: it has to be parsed."""
    return url.decode() if _PLAIN_PATH.fullmatch(url) else None


def without_upgrade(data: bytes) -> bytes:
    """The first bytes of a request without an offer of another protocol; a web socket is left, and refused."""
    end = data.find(b"\r\n\r\n")
    head = len(data) if end < 0 else end + 2
    return _UPGRADE.sub(b"", data[:head]) + data[head:]
