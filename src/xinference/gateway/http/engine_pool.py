"""The pool of connections to engines: sends requests, returns answers, keeps idle connections for reuse."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit
from weakref import WeakSet

from xinference.gateway.http.engine_connection import EngineConnection, EngineDiedError, EngineUnreachableError
from xinference.protocol.errors import Header
from xinference.routing.table import Target
from xinference.tcp_keepalive import ENGINE, NODE

CONNECT_SECONDS = 5.0
#: Idle connections are closed after this time. Engines close theirs after 5 s (uvicorn, cpp-httplib): if they were
#: first, requests would be sent on a connection that is being closed.
KEEPALIVE_SECONDS = 3.0
#: Answers of at most this length are read completely before they are relayed, so that no client gets a part of one.
WHOLE_BYTES = 1024 * 1024
#: Bytes that a line of a request's head must not contain.
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")

#: The path at which another node says by its status whether an engine listens there; no engine has such a path.
LISTENING = "/-/listening"
#: Maximum time for that answer, in seconds.
LISTENING_SECONDS = 1.0
#: The answer of another node whose engine has not got the request (421 Misdirected Request, RFC 9110).
NOT_REACHED = 421
#: The answer, with an empty body, of another node whose engine has closed the connection before it answered.
NO_ANSWER = 502


NodeTls = Callable[[], ssl.SSLContext]
"""Makes the TLS context for a connection to another node; it is called each time, since certificates are renewed."""


class ReplicaNotReachedError(EngineUnreachableError):
    """The other node says that nothing listens at the replica's port, or that it does not have the replica."""


class Address(NamedTuple):
    """Where a connection leads to."""

    host: str
    port: int
    server_name: str
    """See `Target.server_name`."""


class EngineAnswer:
    """An engine's answer: its head, and the part of its body that has arrived. `close` must be called once.

    Attributes:
        first: the beginning of the body.
        connection: the connection on which it arrives.
    """

    __slots__ = ("_address", "_pool", "connection", "first", "headers", "read", "status")

    def __init__(self, pool: EnginePool, address: Address, connection: EngineConnection, first: bytes) -> None:
        self._pool = pool
        self._address = address
        self.connection = connection
        self.first = first
        self.status = connection.status
        self.headers = connection.headers
        self.read = connection.read
        """Reads the rest of the body, piece by piece: `EngineConnection.read`."""

    @property
    def at_end(self) -> bool:
        """Whether `first` is the whole rest of the body."""
        return self.connection.at_end

    @property
    def is_stream(self) -> bool:
        """Whether the answer is a stream of server-sent events."""
        for name, value in self.headers:
            if name == b"content-type":
                return value.startswith(b"text/event-stream")
        return False

    def close(self) -> None:
        """Return the connection to the pool, or close it if the answer has not been read to its end."""
        self._pool.release(self._address, self.connection)


class EnginePool:
    """The connections to all engines; used from one event loop, so it needs no lock.

    Args:
        tls: for connections to other nodes; None: there are none.
    """

    def __init__(self, tls: NodeTls | None = None) -> None:
        self._tls = tls
        self._idle: dict[Address, deque[EngineConnection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._open: WeakSet[EngineConnection] = WeakSet()

    def last_bytes(self) -> dict[str, float]:
        """When the last byte of each engine of this node arrived on an open connection, by base URL.

        The times are those of `time.monotonic`.
        """
        now, times = time.monotonic(), dict[str, float]()
        for connection in self._open:
            seconds, address = connection.seconds_since_byte, connection.address
            if seconds is not None and address is not None and not address[2]:
                url = f"http://{address[0]}:{address[1]}"
                times[url] = max(now - seconds, times.get(url, 0.0))
        return times

    async def close(self) -> None:
        """Close every idle connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for waiting in self._idle.values():
            for connection in waiting:
                connection.abort()
        self._idle.clear()

    async def post(
        self, target: Target, path: str, query: bytes, headers: tuple[Header, ...], body: bytes
    ) -> EngineAnswer:
        """Send `body` to an engine; returns when the first bytes of the answer's body have arrived.

        Raises:
            EngineUnreachableError: no connection could be made.
            EngineDiedError: the connection broke before the first byte of the answer's body.
        """
        address, head = _head(target, path, query, headers)
        connection = await self._ask(address, head, body)
        try:
            if address.server_name:
                _check_node(address, connection)
            first = await connection.read()
            if connection.length is not None and connection.length <= WHOLE_BYTES and not connection.at_end:
                first = await _read_rest(first, connection)
            return EngineAnswer(self, address, connection, first)
        except BaseException:
            connection.abort()
            raise

    async def node_reaches(self, target: Target) -> bool:
        """Whether an engine on another node listens; also true if that node says nothing: its engines may run on."""
        try:
            async with asyncio.timeout(LISTENING_SECONDS):
                answer = await self.post(target, LISTENING, b"", (), b"")
        except ReplicaNotReachedError:
            return False
        except (EngineUnreachableError, EngineDiedError, TimeoutError):
            return True
        answer.close()
        return True

    async def _ask(self, address: Address, head: bytes, body: bytes) -> EngineConnection:
        """A connection on which the answer has begun.

        An engine may close an idle connection at the moment of its use (some close it after each stream). So a request
        without any byte of an answer is sent again on a new connection. If no connection can be made, the request may
        have crashed the engine.
        """
        used = self._idle_connection(address)
        if used is None:
            fresh = self._register(await _connect(address, self._tls), address)
        else:
            try:
                await used.begin(head, body)
            except EngineDiedError:
                if not used.untouched:
                    raise
            else:
                return used
            try:
                fresh = self._register(await _connect(address, self._tls), address)
            except EngineUnreachableError as error:
                raise EngineDiedError(str(error)) from error
        await fresh.begin(head, body)
        return fresh

    def _register(self, connection: EngineConnection, address: Address) -> EngineConnection:
        connection.address = address
        self._open.add(connection)
        return connection

    def release(self, address: Address, connection: EngineConnection) -> None:
        """Keep a connection for the next request if it is reusable, else close it."""
        if not connection.reusable:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        waiting = self._idle.get(address)
        if waiting is None:
            waiting = self._idle[address] = deque()
        waiting.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(KEEPALIVE_SECONDS, self._sweep)

    def _idle_connection(self, address: Address) -> EngineConnection | None:
        """The idle connection that was used last: the engine is the least likely to close it now."""
        waiting = self._idle.get(address)
        oldest = asyncio.get_running_loop().time() - KEEPALIVE_SECONDS
        while waiting:
            connection = waiting.pop()
            if connection.reusable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    def _sweep(self) -> None:
        """Close connections that have been idle for too long; repeat while there are idle ones."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEEPALIVE_SECONDS
        for address, waiting in list(self._idle.items()):
            while waiting and (waiting[0].idle_since <= oldest or not waiting[0].reusable):
                waiting.popleft().abort()
            if not waiting:
                del self._idle[address]
        self._sweeper = loop.call_later(1.0, self._sweep) if self._idle else None


async def _connect(address: Address, tls: NodeTls | None) -> EngineConnection:
    """A new connection.

    Raises:
        EngineUnreachableError: it cannot be made, or the other node's certificate is not accepted.
    """
    loop = asyncio.get_running_loop()
    name = address.server_name
    context = tls() if name and tls is not None else None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, connection = await loop.create_connection(
                EngineConnection, address.host, address.port, ssl=context, server_hostname=name or None
            )
        (NODE if name else ENGINE).set_on(transport.get_extra_info("socket"))
    except OSError as error:  # TimeoutError and SSLError are such errors
        raise EngineUnreachableError(repr(error)) from error
    return connection


def _check_node(address: Address, connection: EngineConnection) -> None:
    """Raise what the other node says of its engine; an engine's own answer passes."""
    if connection.status == NOT_REACHED:
        raise ReplicaNotReachedError(f"the node {address.host} does not reach the replica")
    if connection.status == NO_ANSWER and connection.length == 0:
        raise EngineDiedError(f"the engine on the node {address.host} closed the connection")


async def _read_rest(first: bytes, connection: EngineConnection) -> bytes:
    pieces = [first]
    while piece := await connection.read():
        pieces.append(piece)
    return b"".join(pieces)


def _head(target: Target, path: str, query: bytes, headers: tuple[Header, ...]) -> tuple[Address, bytes]:
    """The address of a request and its head without the length."""
    address, request_line, lines = _fixed_head(target.base_url, target.api_key, path, target.server_name)
    if query:
        request_line += b"?" + CONTROL.sub(b"", query).replace(b" ", b"%20")
    return address, request_line + lines + (USUAL_LINES.get(headers) or _lines(headers))


def _lines(headers: Iterable[Header]) -> bytes:
    return b"".join(b"%b: %b\r\n" % (name, CONTROL.sub(b" ", value)) for name, value in headers)


def _usual_headers() -> Iterator[tuple[Header, ...]]:
    for accept in ((), ((b"accept", b"application/json"),), ((b"accept", b"*/*"),)):
        for version in ((), ((b"anthropic-version", b"2023-06-01"),)):
            yield ((b"content-type", b"application/json"), *accept, *version)


#: The lines of the headers that most requests have: a look-up costs less than the check and the formatting.
USUAL_LINES = {headers: _lines(headers) for headers in _usual_headers()}


@lru_cache(maxsize=1024)
def _fixed_head(base_url: str, api_key: str, path: str, server_name: str) -> tuple[Address, bytes, bytes]:
    """The address of a target, its request line up to the query, and the lines after it, up to `Authorization`.

    This cache has no data of clients, which would stay in memory after the request. The arguments are strings and not
    the `Target`, because a string caches its hash.
    """
    url = urlsplit(base_url)
    assert url.scheme == ("https" if server_name else "http") and url.hostname is not None
    request_line = b"POST " + (url.path + path).encode()
    lines = b" HTTP/1.1\r\nHost: %b\r\n" % url.netloc.encode()
    if api_key:
        lines += b"Authorization: Bearer %b\r\n" % api_key.encode()
    return Address(url.hostname, url.port or (443 if server_name else 80), server_name), request_line, lines


__all__ = ["EngineAnswer", "EngineDiedError", "EnginePool", "EngineUnreachableError"]
