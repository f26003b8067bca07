"""The reply to a part of a request: it is recorded, because the client gets the joined answer."""

from __future__ import annotations

from xinference.gateway.http.asgi import Message, Reply
from xinference.gateway.http.request_figures import RequestFigures


class RecordedReply:
    """Records an answer instead of sending it to a client."""

    def __init__(self, figures: RequestFigures | None = None) -> None:
        """`figures`: those of the client's request, of which this is a part."""
        self.body = b""
        self.reply = Reply(self._send, figures=figures)

    async def _send(self, message: Message) -> None:
        self.body += message.get("body", b"")
