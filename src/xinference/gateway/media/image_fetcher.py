"""Downloads an image for a client, which must not reach more than the public internet through the server."""

from __future__ import annotations

from dataclasses import dataclass

from xinference.error_codes import Code
from xinference.gateway.media.image_types import NAMES, image_type
from xinference.hosts import DomainList
from xinference.https.address import HttpsAddress
from xinference.https.answer import AnswerError
from xinference.https.fetcher import Fetcher
from xinference.https.network import Network
from xinference.protocol.errors import Refusal


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
        self._fetcher = Fetcher(
            lambda url: domains.has(url.host, url.port), max_bytes, seconds, network, accept="image/*", noun="image"
        )

    def check(self, text: str, field: str) -> HttpsAddress:
        """The parts of the address `text`, which the request has in `field`.

        Raises:
            Refusal: 400, the server does not allow the address.
        """
        url = self._fetcher.allowed(text)
        if url is None:
            cause = f"{field}: media must be a data: URI, or an https: address of a host that this server allows."
            raise Refusal(Code.MEDIA_ADDRESS, cause, param=field)
        return url

    async def fetch(self, url: HttpsAddress, field: str) -> Image:
        """The image at an allowed address, which the request has in `field`.

        Raises:
            Refusal: 400; its text names the host, and of what other machines have answered only the status.
        """
        try:
            content = await self._fetcher.fetch(url)
        except AnswerError as error:
            raise Refusal(Code.MEDIA_UNAVAILABLE, f"{field}: {url.host} {error}.", param=field) from None
        kind = image_type(content)
        if kind is None:
            cause = f"{field}: what {url.host} sent is not an image of a known type ({NAMES})."
            raise Refusal(Code.INVALID_MEDIA, cause, param=field)
        return Image(content, kind)
