"""Relays an engine's answer to the client: bytes as they arrive, but only complete server-sent events."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from xinference.error_codes import Code
from xinference.gateway.engine_answers import ODD_ANSWER, fill_deltas
from xinference.gateway.http.asgi import Reply
from xinference.gateway.http.engine_connection import EngineDiedError, Through
from xinference.protocol.errors import stream_error

log = logging.getLogger(__name__)


OnDeath = Callable[[], Awaitable[str | None]]
"""Returns the code of the engine's crash; None: it has not crashed."""
#: What is told of an engine's end, by its code.
END_TEXTS: Mapping[str, str] = {
    Code.ENGINE_DIED: "died",
    Code.ENGINE_HUNG: "made no progress any more and was ended",
    Code.ENGINE_OUT_OF_MEMORY: "took more memory than it may use and was ended",
}


def end_text(code: str) -> str:
    """The words for the end of an engine; those of any other code are that it died."""
    return END_TEXTS.get(code, END_TEXTS[Code.ENGINE_DIED])


class Read(Protocol):
    """The signature of `EngineConnection.read`."""

    def __call__(self, through: Through | None = None, /) -> Awaitable[bytes]: ...


DONE = b"data: [DONE]\n\n"
#: The ends of an event, which are blank lines; the second is also the end of ``\r\n\r\n``.
EVENT_ENDS = (b"\n\n", b"\n\r\n")
LONGEST_END = 3


class EventBuffer:
    """Stores the incomplete event at the end of the bytes that have been read."""

    __slots__ = ("incomplete",)

    def __init__(self) -> None:
        self.incomplete = bytearray()
        """The bytes of the incomplete event."""

    def take(self, chunk: bytes) -> bytes:
        """Add `chunk`; returns all events that are complete now, empty if there are none."""
        buffer = self.incomplete
        # The end of an event may be split between two chunks, so the search starts a few bytes before the new one.
        start = max(0, len(buffer) - LONGEST_END)
        buffer += chunk
        cut = max(at + len(end) if (at := buffer.rfind(end, start)) >= 0 else 0 for end in EVENT_ENDS)
        complete = bytes(buffer[:cut])
        del buffer[:cut]
        return complete


async def relay_events(
    read: Read,
    first: bytes,
    reply: Reply,
    *,
    done: bool,
    model: str,
    rewrite: Callable[[bytes], bytes] | None = None,
    on_death: OnDeath | None = None,
) -> None:
    """Relay a stream of events, from `first` to its end.

    If the engine dies, the stream ends with one error event and no ``[DONE]``. At a regular end, ``[DONE]`` is added
    if `done` is set and the engine sent none. An event without its blank line is dropped, as the format requires.

    Args:
        rewrite: applied to complete events, each once.
        on_death: called if the engine dies, before the error is sent to the client.
    """
    send, write, events, figures = reply.send, reply.write, EventBuffer(), reply.figures
    chunk, last = first, b""
    before = b""  # the chunk before the last one: the usage is in one of both
    counts = rewrite is not None and rewrite is not fill_deltas
    """Whether `rewrite` may count events, so that it is called only if the chunk can be sent."""

    def through(chunk: bytes) -> bool:
        nonlocal before, last
        if write is None or events.incomplete or not chunk.endswith(EVENT_ENDS):
            return False
        if rewrite is not None:
            if counts and not write(b""):
                return False
            try:
                chunk = rewrite(chunk)
            except ODD_ANSWER:
                return False  # the reader gets the chunk and ends the stream
        if not write(chunk):
            return False
        before, last = last, chunk
        return True

    try:
        while chunk:
            if events.incomplete or not chunk.endswith(EVENT_ENDS):
                chunk = events.take(chunk)
            if chunk:
                if not figures.first_token_at:
                    # The first complete events: the engine may have sent the first line of the first event alone.
                    figures.first = figures.first or chunk
                    figures.note_content(chunk)
                try:
                    if rewrite is not None:
                        chunk = rewrite(chunk)
                except ODD_ANSWER as error:
                    log.warning("the engine of %s sent an event that cannot be read: %r", model, error)
                    message = f"The engine of model {model!r} sent an event that cannot be read."
                    figures.code = Code.ENGINE_ERROR
                    await reply.end(stream_error(message, Code.ENGINE_ERROR, anthropic=reply.anthropic))
                    return
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                before, last = last, chunk
            try:
                # Until the first content has arrived, each chunk is searched for it here.
                chunk = await read(through if figures.first_token_at else None)
            except EngineDiedError as error:
                log.warning("the engine of %s died in mid-stream: %r", model, error)
                code = (await on_death() if on_death is not None else None) or Code.ENGINE_DIED
                figures.code = code
                message = f"The engine of model {model!r} {end_text(code)} while it was answering. Retry the request."
                await reply.end(stream_error(message, code, anthropic=reply.anthropic))
                return
        await reply.end(DONE if done and not _has_done_event(last) else b"")
    finally:
        figures.last = before + last


async def relay_bytes(read: Read, first: bytes, reply: Reply, *, model: str, on_death: OnDeath | None = None) -> None:
    """Relay any other answer.

    If the engine dies, the answer stays incomplete and the server closes the connection: there is no other way to
    report an error to a client that has received a part of the answer.
    """
    chunk, before, last = first, b"", b""
    try:
        while chunk:
            await reply.send({"type": "http.response.body", "body": chunk, "more_body": True})
            before, last = last, chunk
            try:
                chunk = await read()
            except EngineDiedError as error:
                log.warning("the engine of %s died in mid-answer: %r", model, error)
                reply.figures.code = (await on_death() if on_death is not None else None) or Code.ENGINE_DIED
                return
        await reply.end()
    finally:
        reply.figures.first, reply.figures.last = first, before + last


def _has_done_event(last: bytes) -> bool:
    return last.rstrip().endswith((b"data: [DONE]", b"data:[DONE]"))
