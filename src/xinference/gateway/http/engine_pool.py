"""The connections to engines: a pool, and one answer at a time from it."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import urlsplit

from xinference.gateway.http.engine_connection import EngineConnection, EngineDiedError, EngineUnreachableError
from xinference.protocol.errors import Header
from xinference.routing.table import Target

CONNECT_SECONDS = 5.0
#: Engines close idle connections after 5 s (uvicorn, cpp-httplib); we must be first, or requests meet a closing one.
KEEPALIVE_SECONDS = 3.0
#: Answers of a known length up to this are read whole before they are passed on, so that half of one is never seen.
WHOLE_BYTES = 1024 * 1024
#: What may not stand in a line of a request's head.
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")

Address = tuple[str, int]


class Answer:
    """An engine's answer, as far as it has come. `close` must be called once, whatever happens.

    Attributes:
        first: the beginning of the body.
    """

    __slots__ = ("_address", "_connection", "_upstream", "first", "headers", "read", "status")

    def __init__(self, upstream: Upstream, address: Address, connection: EngineConnection, first: bytes) -> None:
        self._upstream = upstream
        self._address = address
        self._connection = connection
        self.first = first
        self.status = connection.status
        self.headers = connection.headers
        self.read = connection.read
        """The rest of the body, piece by piece; b"" at its end, EngineDiedError if it breaks off."""

    @property
    def at_end(self) -> bool:
        """Whether `first` is all there is to read."""
        return self._connection.at_end

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of server-sent events."""
        for name, value in self.headers:
            if name == b"content-type":
                return value.startswith(b"text/event-stream")
        return False

    def close(self) -> None:
        """Give the connection back, or close it if the answer has not been read to its end."""
        self._upstream.take_back(self._address, self._connection)


class Upstream:
    """One pool of connections for all engines; used from one event loop."""

    def __init__(self) -> None:
        self._idle: dict[Address, deque[EngineConnection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Close every idle connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for waiting in self._idle.values():
            for connection in waiting:
                connection.abort()
        self._idle.clear()

    async def post(self, target: Target, path: str, query: bytes, headers: tuple[Header, ...], body: bytes) -> Answer:
        """Send `body` to an engine.

        Raises:
            EngineUnreachableError: there is no connection to be had.
            EngineDiedError: it broke before the first byte of the answer's body.
        """
        address, head = _head(target, path, query, headers)
        connection = await self._ask(address, head, body)
        try:
            first = await connection.read()
            if connection.length is not None and connection.length <= WHOLE_BYTES and not connection.at_end:
                first = await _read_rest(first, connection)
            return Answer(self, address, connection, first)
        except BaseException:
            connection.abort()
            raise

    async def _ask(self, address: Address, head: bytes, body: bytes) -> EngineConnection:
        """A connection on which the answer has begun.

        The engine may close an idle one just when it is used (some close after each stream), so a
        request that got not one byte is sent again on a new one. If there is none to be had, the engine may have died
        of the request.
        """
        used = self._idle_connection(address)
        if used is None:
            fresh = await _connect(address)
        else:
            try:
                await used.begin(head, body)
            except EngineDiedError:
                if not used.untouched:
                    raise
            else:
                return used
            try:
                fresh = await _connect(address)
            except EngineUnreachableError as error:
                raise EngineDiedError(str(error)) from error
        await fresh.begin(head, body)
        return fresh

    def take_back(self, address: Address, connection: EngineConnection) -> None:
        """Keep a connection for the next request if it is fit for one."""
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
        """The one that was used last: it is the least likely to be closed just now."""
        waiting = self._idle.get(address)
        oldest = asyncio.get_running_loop().time() - KEEPALIVE_SECONDS
        while waiting:
            connection = waiting.pop()
            if connection.reusable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    def _sweep(self) -> None:
        """Close what has been idle for too long; look again while there is anything."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEEPALIVE_SECONDS
        for address, waiting in list(self._idle.items()):
            while waiting and (waiting[0].idle_since <= oldest or not waiting[0].reusable):
                waiting.popleft().abort()
            if not waiting:
                del self._idle[address]
        self._sweeper = loop.call_later(1.0, self._sweep) if self._idle else None


async def _connect(address: Address) -> EngineConnection:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await loop.create_connection(EngineConnection, *address)
    except OSError as e:  # TimeoutError is one
        raise EngineUnreachableError(repr(e)) from e
    return connection


async def _read_rest(first: bytes, connection: EngineConnection) -> bytes:
    pieces = [first]
    while piece := await connection.read():
        pieces.append(piece)
    return b"".join(pieces)


def _head(target: Target, path: str, query: bytes, headers: tuple[Header, ...]) -> tuple[Address, bytes]:
    """The address of a request and its head without the length."""
    address, request_line, lines = _fixed_head(target.base_url, target.api_key, path)
    if query:
        request_line += b"?" + CONTROL.sub(b"", query).replace(b" ", b"%20")
    return address, request_line + lines + (USUAL_LINES.get(headers) or _lines(headers))


def _lines(headers: Iterable[Header]) -> bytes:
    return b"".join(b"%b: %b\r\n" % (name, CONTROL.sub(b" ", value)) for name, value in headers)


def _usual_headers() -> Iterator[tuple[Header, ...]]:
    for accept in ((), ((b"accept", b"application/json"),), ((b"accept", b"*/*"),)):
        for version in ((), ((b"anthropic-version", b"2023-06-01"),)):
            yield ((b"content-type", b"application/json"), *accept, *version)


#: The lines of the headers that most requests have, because to check and write them costs more than to find them.
USUAL_LINES = {headers: _lines(headers) for headers in _usual_headers()}


@lru_cache(maxsize=1024)
def _fixed_head(base_url: str, api_key: str, path: str) -> tuple[Address, bytes, bytes]:
    """The address of a target; the beginning of its request line; and what follows the query, up to `Authorization`.

    Nothing that a client sends is in this cache: it would stay in memory long after its request. The arguments are
    strings and not the `Target`, because a string remembers its hash.
    """
    url = urlsplit(base_url)
    assert url.scheme == "http" and url.hostname is not None
    request_line = b"POST " + (url.path + path).encode()
    lines = b" HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n" % (url.netloc.encode(), api_key.encode())
    return (url.hostname, url.port or 80), request_line, lines


__all__ = ["Answer", "EngineDiedError", "EngineUnreachableError", "Upstream"]
