"""Fetches an image from another machine, on behalf of a client that must not reach more than the public internet."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from xinference import __version__
from xinference.error_codes import Code
from xinference.gateway.media.http_answer import Answer, AnswerError
from xinference.gateway.media.image_types import NAMES, image_type
from xinference.gateway.media.image_url import ImageUrl, parse
from xinference.gateway.media.network import Network, Streams
from xinference.gateway.media.public_addresses import public_address
from xinference.hosts import DomainList
from xinference.protocol.errors import Refusal

MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Number of addresses of one host that are tried.
MAX_ADDRESSES = 4
#: Maximum seconds until a connection is encrypted.
CONNECT_SECONDS = 5.0
#: Maximum seconds between two pieces of an answer.
PAUSE_SECONDS = 5.0
PIECE = 64 * 1024
LATE = "did not send the image in time"


@dataclass(frozen=True, slots=True)
class Image:
    """The bytes of an image, and its media type."""

    content: bytes
    type: str


class ImageFetcher:
    """Fetches images of the hosts that the server allows."""

    def __init__(self, domains: DomainList, max_bytes: int, seconds: float, network: Network) -> None:
        """
        Args:
            max_bytes: of one image.
            seconds: for one image, with its redirects.
        """
        self._domains = domains
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._network = network

    def check(self, text: str, field: str) -> ImageUrl:
        """The parts of the address `text`, which the request has in `field`.

        Raises:
            Refusal: 400, the server does not allow the address.
        """
        url = self._allowed(text)
        if url is None:
            cause = f"{field}: media must be a data: URI, or an https: address of a host that this server allows."
            raise Refusal(Code.MEDIA_ADDRESS, cause, param=field)
        return url

    async def fetch(self, url: ImageUrl, field: str) -> Image:
        """The image at an allowed address, which the request has in `field`.

        Raises:
            Refusal: 400; its text names the host, and of what other machines have answered only the status.
        """
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._follow(url)
        except AnswerError as error:
            raise _unavailable(url, field, str(error)) from None
        except TimeoutError:
            raise _unavailable(url, field, LATE) from None
        content = bytes(answer.content)
        kind = image_type(content)
        if kind is None:
            cause = f"{field}: what {url.host} sent is not an image of a known type ({NAMES})."
            raise Refusal(Code.INVALID_MEDIA, cause, param=field)
        return Image(content, kind)

    def _allowed(self, text: str) -> ImageUrl | None:
        url = parse(text)
        return url if url is not None and self._domains.has(url.host, url.port) else None

    async def _follow(self, url: ImageUrl) -> Answer:
        """The answer at `url`, or at the end of its redirects; each of them is checked as the first address is."""
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(url)
            if answer.status == 200:
                return answer
            if answer.status not in REDIRECTS or answer.location is None:
                raise AnswerError(f"answers with the status {answer.status}")
            following = self._allowed(url.follow(answer.location))
            if following is None:
                raise AnswerError("redirects to an address that this server does not allow")
            url = following
        raise AnswerError(f"redirects more than {MAX_REDIRECTS} times")

    async def _get(self, url: ImageUrl) -> Answer:
        reader, writer = await self._connect(url, await self._public_addresses(url.host))
        try:
            writer.write(_request(url))
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
            raise AnswerError(LATE) from None
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

    async def _connect(self, url: ImageUrl, addresses: list[IPv4Address | IPv6Address]) -> Streams:
        for address in addresses:
            with contextlib.suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await self._network.connect(address, url.port, url.host)
        raise AnswerError("cannot be reached by TLS with a valid certificate")


def _request(url: ImageUrl) -> bytes:
    lines = (
        f"GET {url.target} HTTP/1.1",
        f"Host: {url.authority}",
        f"User-Agent: xinference/{__version__}",
        "Accept: image/*",
        "Accept-Encoding: identity",
        "Connection: close",
        "\r\n",
    )
    return "\r\n".join(lines).encode("ascii")


def _unavailable(url: ImageUrl, field: str, why: str) -> Refusal:
    return Refusal(Code.MEDIA_UNAVAILABLE, f"{field}: {url.host} {why}.", param=field)
