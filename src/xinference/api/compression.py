"""Compresses the larger answers of the management API for clients that accept gzip."""

from __future__ import annotations

import zlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Shorter answers are sent as they are.
MIN_BYTES = 1024
#: The fastest level: the answer is compressed in the event loop, which also serves the requests to models.
LEVEL = 1
#: The window of zlib with the head of gzip.
_GZIP = 31


class Compression:
    """An ASGI app that compresses the whole answers of another one. Answers in several pieces stay as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not accepts_gzip(Headers(scope=scope).get("accept-encoding", "")):
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_whole_text(Headers(raw=message["headers"])):
                start = message
                return
            if start is not None:
                begun, start = start, None
                if not message.get("more_body", False):
                    message = _compress(begun, message)
                await send(begun)
            await send(message)

        await self._app(scope, receive, send_compressed)
        if start is not None:
            await send(start)


def _is_whole_text(headers: Headers) -> bool:
    """Whether an answer is one text; a stream has no length, and its head must not wait for its first piece."""
    kind = headers.get("content-type", "")
    return (
        kind.startswith(("application/json", "text/html", "text/plain"))
        and "content-length" in headers
        and "content-encoding" not in headers
    )


def _compress(start: Message, message: Message) -> Message:
    """The body's message, compressed if that is worth it; the headers of `start` are changed accordingly."""
    body: bytes = message.get("body", b"")
    if len(body) < MIN_BYTES:
        return message
    headers = MutableHeaders(raw=list(start["headers"]))
    packed = pack(body)
    headers["content-encoding"] = "gzip"
    headers["content-length"] = str(len(packed))
    headers.add_vary_header("accept-encoding")
    start["headers"] = headers.raw
    return {**message, "body": packed}


def pack(body: bytes) -> bytes:
    """The body with gzip."""
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
    return compressor.compress(body) + compressor.flush()


def accepts_gzip(header: str) -> bool:
    """Whether the header ``Accept-Encoding`` permits gzip."""
    for part in header.lower().split(","):
        name, _, quality = part.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
