"""Cross-origin requests of browsers: the origins of `XINFERENCE_ALLOW_ORIGIN` may send requests and read the answers.

A browser asks by a preflight request, OPTIONS without a key, before it sends JSON or a key to another origin. The
request itself still needs its key.
"""

from __future__ import annotations

from collections.abc import Iterable

from xinference.gateway.http.asgi import Message, Reply, Send
from xinference.protocol.errors import Header

#: How long a browser may reuse the answer of a preflight request.
MAX_AGE_SECONDS = 600
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"


class AllowedOrigins:
    """The origins that the setting names, such as ``http://localhost:3000``; ``*`` is every origin."""

    def __init__(self, setting: str) -> None:
        origins = (origin.strip().rstrip("/").lower() for origin in setting.split(","))
        self._origins = frozenset(origin.encode() for origin in origins if origin)

    def find(self, headers: Iterable[Header]) -> bytes | None:
        """The allowed origin that a request comes from; None: it names none, or another."""
        for name, value in headers:
            if name == b"origin":
                return value if b"*" in self._origins or value.lower() in self._origins else None
        return None


def is_preflight(method: str, headers: Iterable[Header]) -> bool:
    """Whether a browser asks if it may send a request."""
    return method == "OPTIONS" and any(name == b"access-control-request-method" for name, _ in headers)


async def answer_preflight(send: Send, origin: bytes, headers: Iterable[Header]) -> None:
    """Allow the request that an allowed origin asks for."""
    asked = next((value for name, value in headers if name == b"access-control-request-headers"), b"content-type")
    reply = Reply(send)
    allowed = (
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", asked),
        (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS),
        *_allowing(origin),
    )
    await reply.start(204, allowed)
    await reply.end()


def with_origin(send: Send, origin: bytes) -> Send:
    """`send` with the headers by which a browser lets the page of `origin` read the answer."""

    async def allowing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_allowing(origin)]}
        await send(message)

    return allowing


def _allowing(origin: bytes) -> tuple[Header, ...]:
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"x-request-id, retry-after"),
        (b"vary", b"origin"),
    )
