"""ASGI types that the gateway uses, and the reply to one request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from xinference.gateway.http.request_figures import RequestFigures
from xinference.protocol.errors import Header

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Sends a chunk of a body without awaiting; returns whether it was sent. An empty chunk only checks whether it can be.
Write = Callable[[bytes], bool]
#: Sends a whole answer without awaiting, in place of this `Send`; returns whether it was sent.
WriteWhole = Callable[[Send, int, Sequence[Header], bytes], bool]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


JSON_TYPE: Header = (b"content-type", b"application/json")


class Reply:
    """The answer to one request; records whether it has started, because an answer starts only once."""

    __slots__ = ("anthropic", "ended", "figures", "is_stream", "send", "started", "status", "write", "write_whole")

    def __init__(
        self,
        send: Send,
        *,
        anthropic: bool = False,
        write: Write | None = None,
        write_whole: WriteWhole | None = None,
        figures: RequestFigures | None = None,
    ) -> None:
        self.send = send
        self.write = write
        """Sends chunks of a started body without `send`; None if the server does not support this."""
        self.write_whole = write_whole
        """Sends a whole answer without `send`; None if the server does not support this."""
        self.anthropic = anthropic
        self.started = self.ended = False
        self.is_stream = False
        """Whether the answer consists of server-sent events."""
        self.status = 0
        """The status that was sent; 0: none yet."""
        self.figures = figures or RequestFigures()
        """What is noted for the record of the request."""

    async def start(self, status: int, headers: Iterable[Header]) -> None:
        """Send the status line and headers."""
        self.started = True
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def end(self, body: bytes = b"") -> None:
        """Send the last piece of the body."""
        self.ended = True
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    def complete(self, status: int, headers: Sequence[Header], body: bytes) -> bool:
        """Send a whole answer at once; False: it can't be sent so, use `start` and `end`."""
        if self.write_whole is None or not self.write_whole(self.send, status, headers, body):
            return False
        self.started = self.ended = True
        self.status = status
        return True

    async def whole(
        self, status: int, body: bytes, headers: Iterable[Header] = (), *, head: bool = False, kind: Header = JSON_TYPE
    ) -> None:
        """Send a complete answer, JSON by default; with `head`, for HEAD, without its body."""
        await self.start(status, (kind, (b"content-length", b"%d" % len(body)), *headers))
        await self.end(b"" if head else body)
