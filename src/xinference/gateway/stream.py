"""From the engine's socket to the client's: bytes as they come, but only whole server-sent events."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from xinference.gateway.http.asgi import Reply
from xinference.gateway.http.engine_connection import EngineDiedError, Through
from xinference.protocol.errors import stream_error

logger = logging.getLogger(__name__)


class Read(Protocol):
    """See `EngineConnection.read`."""

    def __call__(self, through: Through | None = None, /) -> Awaitable[bytes]: ...


DONE = b"data: [DONE]\n\n"
#: Ends of a blank line, which ends an event; the second also ends ``\r\n\r\n``.
EVENT_ENDS = (b"\n\n", b"\n\r\n")
LONGEST_END = 3


class Events:
    """Holds back the incomplete event at the end of what has been read."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = bytearray()
        """The incomplete event."""

    def take(self, chunk: bytes) -> bytes:
        """Add `chunk`; returns all whole events that are there now, or nothing."""
        held = self.held
        # An end may lie across the seam, so the search begins a little before it; what lies further back was searched.
        seam = max(0, len(held) - LONGEST_END)
        held += chunk
        cut = max(at + len(end) if (at := held.rfind(end, seam)) >= 0 else 0 for end in EVENT_ENDS)
        whole = bytes(held[:cut])
        del held[:cut]
        return whole


async def relay_events(
    read: Read,
    first: bytes,
    reply: Reply,
    *,
    done: bool,
    model: str,
    tidy: Callable[[bytes], bytes] | None = None,
) -> None:
    """Hand a stream of events on, from `first` to its end.

    An engine that dies leaves one error event and no ``[DONE]``; a clean end gets a ``[DONE]`` if `done` wants one
    and the engine sent none. As the format has it, an event without its blank line does not count.
    """
    send, write, events = reply.send, reply.write, Events()
    chunk, last = first, b""

    def through(chunk: bytes) -> bool:
        nonlocal last
        if write is None or events.held or not chunk.endswith(EVENT_ENDS):
            return False
        if tidy is not None:
            if not write(b""):  # not before it is known that the chunk can go: it may count what it sees
                return False
            chunk = tidy(chunk)
        if not write(chunk):
            return False
        last = chunk
        return True

    while chunk:
        if events.held or not chunk.endswith(EVENT_ENDS):
            chunk = events.take(chunk)
        if chunk:
            if tidy is not None:
                chunk = tidy(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            last = chunk
        try:
            chunk = await read(through)
        except EngineDiedError as e:
            logger.warning("the engine of %s died in mid-stream: %r", model, e)
            message = f"The engine of model {model!r} died while it was answering. Ask again."
            error = stream_error(message, "engine_died", anthropic=reply.anthropic)
            await reply.end(error)
            return
    await reply.end(DONE if done and not _says_done(last) else b"")


async def relay_bytes(read: Read, first: bytes, reply: Reply, *, model: str) -> None:
    """Hand any other answer on.

    If the engine dies, the answer is left unfinished: the server then closes the connection, which is the only way to
    tell a client that has part of it.
    """
    chunk = first
    while chunk:
        await reply.send({"type": "http.response.body", "body": chunk, "more_body": True})
        try:
            chunk = await read()
        except EngineDiedError as e:
            logger.warning("the engine of %s died in mid-answer: %r", model, e)
            return
    await reply.end()


def _says_done(last: bytes) -> bool:
    return last.rstrip().endswith((b"data: [DONE]", b"data:[DONE]"))
