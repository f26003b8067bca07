"""One connection to an engine: HTTP/1.1 over a bare protocol, because a client library costs more than the rest of us.

httptools parses; what is left is a request at a time, the body's pieces as they come, and back-pressure.
`docs/performance.md` has the figures of aiohttp's client, which this one replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from xinference.protocol.errors import Header

#: Bytes of an answer that may wait for the client before the engine's socket is read no further.
HIGH_WATER = 64 * 1024
#: Bytes of an answer's head; an engine that sends more is broken.
MAX_HEAD = 64 * 1024
#: Requests up to this are written with their head in one piece.
ONE_PIECE = 64 * 1024
#: The engine's headers that clients get, in lower case.
PASSED_ON = frozenset({b"content-type", b"content-length", b"content-encoding", b"x-request-id", b"retry-after"})

#: Takes what has arrived there and then; False: it has to be read.
Through = Callable[[bytes], bool]


class EngineUnreachableError(Exception):
    """No connection: the request has not reached an engine."""


class EngineDiedError(Exception):
    """The connection broke before the answer was complete: the engine may have seen the request."""


class EngineConnection(asyncio.Protocol):
    """One connection; it carries one request after the other, never two at once.

    Attributes:
        status, headers: of the answer, once `begin` has returned; only headers in `PASSED_ON`, names in lower case.
        length: the answer's length in bytes; None if it is not told.
        complete: the whole answer has arrived, though perhaps not all of it has been read.
        reusable: nothing is to be read and another request may follow.
    """

    __slots__ = (
        "_broken",
        "_chunked",
        "_head_size",
        "_headers_done",
        "_parser",
        "_paused",
        "_pieces",
        "_size",
        "_through",
        "_transport",
        "_waiter",
        "complete",
        "headers",
        "idle_since",
        "length",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._through: Through | None = None
        self._pieces: list[bytes] = []
        self._broken: str | None = None
        self._paused = False
        self.complete = True
        self.reusable = False
        self.idle_since = 0.0
        self._head_size = self._size = 0
        self._clear()

    def _clear(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.length: int | None = None
        self._chunked = self._headers_done = False

    # What the gateway calls.

    async def begin(self, head: bytes, body: bytes) -> None:
        """Send a request; returns when the answer's headers have arrived.

        Args:
            head: everything before ``Content-Length``, each line with its end.

        Raises:
            EngineDiedError: the connection broke before.
        """
        self._clear()
        self._head_size = self._size = 0
        self.complete = self.reusable = False
        transport = self._transport
        assert transport is not None
        head = b"%bContent-Length: %d\r\n\r\n" % (head, len(body))
        if len(body) <= ONE_PIECE:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        while not self._headers_done:
            if self._broken is not None:
                raise EngineDiedError(self._broken)
            await self._wait()

    async def read(self, through: Through | None = None) -> bytes:
        """What has arrived since the last read, after a wait if that is nothing; b"" at the end.

        Args:
            through: is given what arrives meanwhile, while the reader sleeps on; what it does not take is returned.

        Raises:
            EngineDiedError: the connection broke, and everything that arrived before has been read.
        """
        self._through = through
        try:
            while not self._pieces:
                if self.complete:
                    return b""
                if self._broken is not None:
                    raise EngineDiedError(self._broken)
                await self._wait()
        finally:
            self._through = None
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            cast(asyncio.Transport, self._transport).resume_reading()
        return data

    @property
    def untouched(self) -> bool:
        """Whether not one byte of the answer has arrived."""
        return not self._head_size

    @property
    def at_end(self) -> bool:
        """Whether the whole answer has been read."""
        return self.complete and not self._pieces

    @property
    def is_open(self) -> bool:
        return self._broken is None and self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        """Close at once; an engine that is still answering sees its client leave."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _break(self, why: str) -> None:
        self._broken = self._broken or why
        self.reusable = False
        self._wake()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        if self.complete:  # what it says without having been asked belongs to no request
            self._break("the engine sent more than its answer")
            self.abort()
            return
        if not self._headers_done:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as e:
            self._break(f"the engine's answer is not HTTP: {e!r}")
            self.abort()
            return
        if not self._headers_done:
            if self._head_size > MAX_HEAD:
                self._break(f"the engine's headers have more than {MAX_HEAD} bytes")
                self.abort()
            return
        if self._through is not None and self._pieces and not self.complete and self._pass_through(self._through):
            return
        self._wake()
        if self._size > HIGH_WATER and not self._paused and not self.complete:
            self._paused = True
            cast(asyncio.Transport, self._transport).pause_reading()

    def _pass_through(self, through: Through) -> bool:
        """Whether `through` took what has arrived. Only while the reader sleeps: else what it was given comes first."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return False
        pieces = self._pieces
        if not through(pieces[0] if len(pieces) == 1 else b"".join(pieces)):
            return False
        pieces.clear()
        self._size = 0
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        until_closed = self._headers_done and self.length is None and not self._chunked
        if exc is None and until_closed and self._broken is None:
            self.complete = True
        self._break(f"the connection broke: {exc!r}" if exc else "the engine closed the connection")
        del self._parser  # it holds our methods: a ring that only the collector would take apart

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.complete:
            raise EngineDiedError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers_done:  # a trailer
            return
        name = name.lower()
        if name in PASSED_ON:
            self.headers.append((name, value))
            if name == b"content-length":
                self.length = int(value)
        elif name == b"transfer-encoding":
            self._chunked = value.lower().endswith(b"chunked")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # "100 Continue" and the like: the answer follows
            self._clear()
            return
        self.status = status
        self._headers_done = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        if self._headers_done:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()
