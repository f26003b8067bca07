"""One HTTP/1.1 connection to an engine, as an asyncio protocol with httptools' parser.

An HTTP client library costs more than the rest of the gateway: `docs/performance.md` has the figures of aiohttp's
client, which this module replaced. The connection sends one request at a time, returns the pieces of the body as they
arrive, and stops reading from the engine while the client is slower.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from enum import Enum
from typing import cast

import httptools

from xinference.protocol.errors import Header

#: Bytes of an answer that may wait for the client before reading from the engine is paused.
HIGH_WATER = 64 * 1024
#: Maximum bytes of an answer's head; an engine that sends more is broken.
MAX_HEAD = 64 * 1024
#: A request's head and body are written in one piece if the body has at most this many bytes.
ONE_PIECE = 64 * 1024
#: Linux counts the time since the last byte of each connection, so that no code has to run for it; elsewhere 0.
TCP_INFO: int = getattr(socket, "TCP_INFO", 0) if sys.platform == "linux" else 0
#: Position of `tcpi_last_data_recv` in `struct tcp_info`.
LAST_DATA_AT = 52
#: The engine's headers that clients get, in lower case.
PASSED_ON = frozenset(
    {
        *(b"content-type", b"content-length", b"content-encoding", b"x-request-id", b"retry-after"),
        *(b"traceparent", b"tracestate", b"traceresponse"),
    }
)

#: The versions of HTTP in which an answer may come.
VERSIONS = ("1.1", "1.0")

#: Called with bytes when they arrive; returns False to reject them: then `read` returns them.
Through = Callable[[bytes], bool]


class EngineUnreachableError(Exception):
    """No connection: the request has not reached an engine."""


class EngineDiedError(Exception):
    """The connection broke before the answer was complete: the engine may have seen the request."""


class State(Enum):
    """The phase of a connection in its exchange of a request and an answer.

    IDLE -> HEAD -> BODY -> IDLE or CLOSED. A connection that breaks is CLOSED if it was IDLE, else BROKEN.
    """

    IDLE = "no answer is due; a request may follow"
    HEAD = "a request has been sent, the head of its answer is due"
    BODY = "the head has arrived, the body is not complete"
    CLOSED = "no answer is due, and no request may follow"
    BROKEN = "the connection broke before the answer was complete"


# Globals: they are compared for each piece of an answer.
IDLE, HEAD, BODY, CLOSED, BROKEN = State


class EngineConnection(asyncio.Protocol):
    """One connection; it carries one request after the other, never two at once.

    Attributes:
        status, headers: of the answer, once `begin` has returned; only headers in `PASSED_ON`, names in lower case.
        length: the answer's length in bytes; None if the head has no length.
        pieces, received: the pieces of the answer's body that have been read until now, and their bytes.
        address, idle_since: set by the pool.
    """

    __slots__ = (
        "__weakref__",
        "_failure",
        "_framed",
        "_head_size",
        "_parser",
        "_paused",
        "_pieces",
        "_size",
        "_state",
        "_through",
        "_transport",
        "_waiter",
        "address",
        "headers",
        "idle_since",
        "length",
        "on_body",
        "pieces",
        "received",
        "status",
    )

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # called by the parser for each piece: the list's own method costs the least
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._through: Through | None = None
        self._state = IDLE
        self._failure = ""
        self._paused = False
        self.address: tuple[str, int, str] | None = None
        self.idle_since = 0.0
        self._head_size = self._size = 0
        self._clear()

    def _clear(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.length: int | None = None
        self.pieces = self.received = 0
        self._framed = False
        """Whether the head determines the end of the body; if not, the end of the connection is the end."""

    # -- for the pool ---------------------------------------------------------------------------------------

    async def begin(self, head: bytes, body: bytes) -> None:
        """Send a request; returns when the answer's head has arrived. The connection is closed if that fails.

        Args:
            head: everything before ``Content-Length``, each line with its end.

        Raises:
            EngineDiedError: the connection broke before the head was complete.
        """
        if self._state is not IDLE:
            raise EngineDiedError(self._failure)
        self._clear()
        self._head_size = self._size = 0
        self._state = HEAD
        transport = self._transport
        assert transport is not None
        head = b"%bContent-Length: %d\r\n\r\n" % (head, len(body))
        if len(body) <= ONE_PIECE:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        try:
            while self._state is HEAD:
                await self._woken()
        except BaseException:
            self.abort()
            raise
        if not self.status:
            raise EngineDiedError(self._failure)

    async def read(self, through: Through | None = None) -> bytes:
        """Return the bytes that have arrived since the last read, after a wait if there are none; b"" at the end.

        Args:
            through: is called with the bytes that arrive while the reader waits; rejected bytes are returned.

        Raises:
            EngineDiedError: the connection broke, and everything that arrived before has been read.
        """
        self._through = through
        try:
            while not self._pieces:
                if self._state is not BODY:
                    if self._state is BROKEN:
                        raise EngineDiedError(self._failure)
                    return b""
                await self._woken()
        finally:
            self._through = None
        pieces = self._pieces
        number = len(pieces)
        data = pieces[0] if number == 1 else b"".join(pieces)
        pieces.clear()
        self.pieces += number
        self.received += len(data)
        self._size = 0
        if self._paused:
            self._paused = False
            cast(asyncio.Transport, self._transport).resume_reading()
        return data

    @property
    def untouched(self) -> bool:
        """Whether no byte of the answer has arrived."""
        return not self._head_size

    @property
    def at_end(self) -> bool:
        """Whether the whole answer has been read."""
        return not self._pieces and (self._state is IDLE or self._state is CLOSED)

    @property
    def reusable(self) -> bool:
        """Whether the whole answer has been read and another request may follow."""
        return self._state is IDLE and not self._pieces and not cast(asyncio.Transport, self._transport).is_closing()

    @property
    def seconds_since_byte(self) -> float | None:
        """Seconds since the last byte arrived, or since the connection was made; None: the system does not tell."""
        transport = self._transport
        if transport is None or transport.is_closing() or not TCP_INFO:
            return None
        try:
            info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, TCP_INFO, LAST_DATA_AT + 4)
        except OSError:
            return None
        milliseconds: int = struct.unpack_from("=I", info, LAST_DATA_AT)[0]
        return milliseconds / 1000

    def abort(self) -> None:
        """Close the connection at once; an engine that is still answering sees a client that disconnects."""
        if self._transport is not None:
            self._transport.abort()

    def _woken(self) -> asyncio.Future[None]:
        """A future that ends when the state changes or bytes have arrived."""
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        return waiter

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _break(self, why: str) -> None:
        """Accept no more bytes and no more requests; `why` is the reason if an answer is due."""
        if self._state is HEAD or self._state is BODY:
            self._state = BROKEN
        elif self._state is IDLE:
            self._state = CLOSED
        self._failure = self._failure or why
        self._wake()

    # -- callbacks of the event loop ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from it

    def data_received(self, data: bytes) -> None:
        if self._state is not BODY:
            if self._state is not HEAD:  # no request has asked for these bytes
                self._break("the engine sent more than its answer")
                self.abort()
                return
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"the engine's answer is not HTTP: {error!r}")
            self.abort()
            return
        state, through = self._state, self._through
        if through is not None and state is BODY and self._pieces and self._pass_through(through):
            return
        if state is HEAD:
            if self._head_size > MAX_HEAD:
                self._break(f"the engine's headers have more than {MAX_HEAD} bytes")
                self.abort()
            return
        # With the framing of the pieces, because the limit need not be exact.
        self._size = self._size + len(data) if self._pieces else 0
        self._wake()
        if self._size > HIGH_WATER and not self._paused and state is BODY:
            self._paused = True
            cast(asyncio.Transport, self._transport).pause_reading()

    def _pass_through(self, through: Through) -> bool:
        """Whether `through` accepted the bytes. Only while the reader waits: otherwise older bytes come first."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return False
        pieces = self._pieces
        number = len(pieces)
        data = pieces[0] if number == 1 else b"".join(pieces)
        if not through(data):
            return False
        pieces.clear()
        self.pieces += number
        self.received += len(data)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._state is BODY and not self._framed:
            self._state = CLOSED  # the body ends with the connection
        self._break(f"the connection broke: {exc!r}" if exc else "the engine closed the connection")
        del self._parser  # the parser refers to our methods: only the garbage collector would free this cycle

    # -- callbacks of the parser ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._state is not HEAD:
            raise EngineDiedError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state is not HEAD:  # a trailer
            return
        name = name.lower()
        if name in PASSED_ON:
            self.headers.append((name, value))
            if name == b"content-length":
                self.length = int(value)
                self._framed = True
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise EngineDiedError(f"the transfer encoding is {value!r}, and no request asks for one")
            self._framed = True

    def on_headers_complete(self) -> None:
        if self._parser.get_http_version() not in VERSIONS:
            raise EngineDiedError("the answer has another version of HTTP")
        status = self._parser.get_status_code()
        if status < 200:  # "100 Continue" and the like: the answer follows
            self._clear()
            return
        self.status = status
        self._state = BODY

    def on_message_complete(self) -> None:
        if self._state is BODY:
            self._state = IDLE if self._parser.should_keep_alive() else CLOSED
