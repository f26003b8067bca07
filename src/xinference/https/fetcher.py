"""Fetches the content of an ``https:`` address from a public machine, within limits of bytes and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from xinference import __version__
from xinference.https.address import HttpsAddress, parse
from xinference.https.answer import Answer, AnswerError
from xinference.https.network import Network, Streams
from xinference.https.public_addresses import public_address

MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Number of addresses of one host that are tried.
MAX_ADDRESSES = 4
#: Maximum seconds until a connection is encrypted.
CONNECT_SECONDS = 5.0
#: Maximum seconds between two pieces of an answer.
PAUSE_SECONDS = 5.0
PIECE = 64 * 1024


class Fetcher:
    """Fetches from hosts that are allowed; each redirect is checked as the first address is."""

    def __init__(
        self,
        is_allowed: Callable[[HttpsAddress], bool],
        max_bytes: int,
        seconds: float,
        network: Network,
        *,
        accept: str,
        noun: str,
    ) -> None:
        """
        Args:
            max_bytes: of one content.
            seconds: for one content, with its redirects.
            accept: the value of the header ``Accept``.
            noun: the kind of content, for the text of an error.
        """
        self._is_allowed = is_allowed
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._network = network
        self._accept = accept
        self._late = f"did not send the {noun} in time"

    def allowed(self, text: str) -> HttpsAddress | None:
        """The parts of an address; None: it is no ``https:`` address, or its host is not allowed."""
        url = parse(text)
        return url if url is not None and self._is_allowed(url) else None

    async def fetch(self, url: HttpsAddress) -> bytes:
        """The content at an allowed address.

        Raises:
            AnswerError: its text is the end of a sentence about the host; of the answer it has only the status.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return bytes((await self._follow(url)).content)
        except TimeoutError:
            raise AnswerError(self._late) from None

    async def _follow(self, url: HttpsAddress) -> Answer:
        """The answer at `url`, or at the end of its redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(url)
            if answer.status == 200:
                return answer
            if answer.status not in REDIRECTS or answer.location is None:
                raise AnswerError(f"answers with the status {answer.status}")
            following = self.allowed(url.follow(answer.location))
            if following is None:
                raise AnswerError("redirects to an address that this server does not allow")
            url = following
        raise AnswerError(f"redirects more than {MAX_REDIRECTS} times")

    async def _get(self, url: HttpsAddress) -> Answer:
        reader, writer = await self._connect(url, await self._public_addresses(url.host))
        try:
            writer.write(self._request(url))
            answer = Answer(self._max_bytes)
            while not answer.is_complete and answer.status not in REDIRECTS:
                async with asyncio.timeout(PAUSE_SECONDS):
                    data = await reader.read(PIECE)
                if not data:
                    answer.end()
                    break
                answer.feed(data)
                if answer.status not in (0, 200):
                    break
            return answer
        except TimeoutError:
            raise AnswerError(self._late) from None
        except OSError:
            raise AnswerError("broke the connection") from None
        finally:
            writer.transport.abort()

    async def _public_addresses(self, host: str) -> list[IPv4Address | IPv6Address]:
        """The addresses of a host that may be connected to.

        One text for a name without any address and for one with private addresses only: else a client could learn which
        names this machine's network has.
        """
        found: list[str] = []
        with contextlib.suppress(OSError, UnicodeError):
            found = await self._network.addresses(host)
        addresses = [address for text in found if (address := public_address(text)) is not None]
        if not addresses:
            raise AnswerError("has no public address")
        return addresses[:MAX_ADDRESSES]

    async def _connect(self, url: HttpsAddress, addresses: list[IPv4Address | IPv6Address]) -> Streams:
        for address in addresses:
            with contextlib.suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await self._network.connect(address, url.port, url.host)
        raise AnswerError("cannot be reached by TLS with a valid certificate")

    def _request(self, url: HttpsAddress) -> bytes:
        lines = (
            f"GET {url.target} HTTP/1.1",
            f"Host: {url.authority}",
            f"User-Agent: xinference/{__version__}",
            f"Accept: {self._accept}",
            "Accept-Encoding: identity",
            "Connection: close",
            "\r\n",
        )
        return "\r\n".join(lines).encode("ascii")
