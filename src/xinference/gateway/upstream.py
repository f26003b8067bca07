"""The connections to engines."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache

import aiohttp
from yarl import URL

from xinference.control.routing import Target
from xinference.gateway.asgi import Header

CONNECT_SECONDS = 5.0
#: Engines close idle connections after 5 s (uvicorn, cpp-httplib); we must be first, or requests meet a closing one.
KEEPALIVE_SECONDS = 3.0
#: Answers of a known length up to this are read whole before they are passed on, so that half of one is never seen.
WHOLE_BYTES = 1024 * 1024
PASSED_ON = frozenset({b"content-type", b"content-length", b"content-encoding", b"x-request-id", b"retry-after"})


class EngineUnreachableError(Exception):
    """No connection: the request has not reached an engine."""


class EngineDiedError(Exception):
    """The connection broke before the answer began: the engine may have seen the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An engine's answer, as far as it has come."""

    status: int
    headers: list[Header]
    """Those that clients get; names in lower case."""
    first: bytes
    """The beginning of the body."""
    content: aiohttp.StreamReader
    """The rest of it."""

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of server-sent events."""
        return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in self.headers)


class Upstream:
    """One pool of connections for all engines."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool; done by the first request if nobody has."""
        self._session = self._session or _new_session()

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @contextlib.asynccontextmanager
    async def post(
        self, target: Target, path: str, query: bytes, headers: dict[str, str], body: bytes
    ) -> AsyncIterator[Answer]:
        """Send `body` to an engine; its connection is closed if the block is left before the answer's end.

        Raises:
            EngineUnreachableError: there is no connection to be had.
            EngineDiedError: it broke before the first byte of the answer's body.
        """
        session = self._session = self._session or _new_session()
        response = await _begin(session, target, path, query, headers, body)
        try:
            yield await _answer(response)
        finally:
            response.close()


def _new_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    )


async def _begin(
    session: aiohttp.ClientSession, target: Target, path: str, query: bytes, headers: dict[str, str], body: bytes
) -> aiohttp.ClientResponse:
    url = _url(target.base_url, path, query)
    headers = {**headers, "Authorization": f"Bearer {target.api_key}"}
    try:
        return await session.post(url, data=body, headers=headers, allow_redirects=False)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as e:
        raise EngineUnreachableError(str(e)) from e
    except (aiohttp.ClientError, OSError) as e:
        raise EngineDiedError(repr(e)) from e


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    headers = [(lower, value) for name, value in response.raw_headers if (lower := name.lower()) in PASSED_ON]
    length = response.content_length
    try:
        if length is not None and length <= WHOLE_BYTES:
            first = await response.content.read()
        else:
            first = await response.content.readany()
    except (aiohttp.ClientError, OSError) as e:
        raise EngineDiedError(repr(e)) from e
    return Answer(response.status, headers, first, response.content)


@lru_cache(maxsize=256)
def _url(base_url: str, path: str, query: bytes) -> URL:
    text = f"{base_url}{path}?{query.decode('latin-1')}" if query else base_url + path
    return URL(text, encoded=True)
