"""The few ASGI types and messages that the data path uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from xinference.protocol.errors import Header

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Sends a chunk of a body at once, or says that it could not. An empty one only asks.
Write = Callable[[bytes], bool]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


JSON_TYPE: Header = (b"content-type", b"application/json")


class Reply:
    """One answer: remembers whether it has started, so that it is started only once."""

    __slots__ = ("anthropic", "model", "send", "started", "status", "write")

    def __init__(self, send: Send, *, anthropic: bool = False, write: Write | None = None) -> None:
        self.send = send
        self.write = write
        """A way past `send` for chunks of a body that has begun, where the server has one."""
        self.anthropic = anthropic
        self.started = False
        self.status = 0
        """What was answered; 0: nothing yet."""
        self.model = ""
        """The deployment that was asked, once it is found."""

    async def start(self, status: int, headers: Iterable[Header]) -> None:
        """Send the status line and headers."""
        self.started = True
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def end(self, body: bytes = b"") -> None:
        """Send the last piece of the body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def whole(
        self, status: int, body: bytes, headers: Iterable[Header] = (), *, head: bool = False, kind: Header = JSON_TYPE
    ) -> None:
        """Send an answer that is known in full, JSON by default; `head` keeps the body back, as HEAD wants it."""
        await self.start(status, (kind, (b"content-length", b"%d" % len(body)), *headers))
        await self.end(b"" if head else body)
