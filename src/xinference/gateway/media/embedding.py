"""Embeds the images that a request names by an address: an engine gets the image itself and connects to no host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.gateway.fair_queue import RETRY_AFTER_SECONDS, FairQueue
from xinference.gateway.media.image_fetcher import ImageFetcher
from xinference.gateway.media.image_places import Body, ImagePlace, image_places
from xinference.gateway.places import Places
from xinference.hosts import DomainList
from xinference.https.address import HttpsAddress
from xinference.https.network import Network, real_network
from xinference.protocol.errors import Refusal

#: Maximum number of different addresses in one request.
MAX_ADDRESSES = 16
#: Number of images that one gateway process fetches at the same time.
AT_ONCE = 8
_PLACES = Places.equal(AT_ONCE)
#: The name of the queue; there is one.
_QUEUE = "images"


class ImageEmbedder:
    """Fetches and embeds the images of requests; a few at the same time, clients in turn."""

    def __init__(self, settings: Settings, network: Network | None = None) -> None:
        self._fetcher = ImageFetcher(
            DomainList(settings.allow_media_urls),
            settings.media_url_bytes,
            settings.media_url_seconds,
            network or real_network(),
        )
        self._max_body_bytes = settings.max_body_bytes
        self._queue = FairQueue(settings.max_queued_requests)

    async def embed(self, body: bytes, client: str, take: Callable[[int], None]) -> bytes:
        """The body with its images; unchanged if no image is named by an address.

        Args:
            body: valid JSON, an object.
            client: the key or the address of the client, whose images have a turn together.
            take: is called with the number of bytes that the request has now.

        Raises:
            Refusal: an image is not allowed, cannot be fetched, or is too large; too many images wait.
        """
        document: Body = msgspec.json.decode(body)
        by_address: dict[str, list[ImagePlace]] = {}
        for place in image_places(document):
            by_address.setdefault(place.address, []).append(place)
        if not by_address:
            return body
        if len(by_address) > MAX_ADDRESSES:
            path = next(reversed(by_address.values()))[0].path
            cause = f"{path}: a request may name at most {MAX_ADDRESSES} images by an address."
            raise Refusal(Code.MEDIA_ADDRESS, cause, param=path)
        # All of them before the first is fetched.
        urls = [self._fetcher.check(places[0].address, places[0].path) for places in by_address.values()]
        total = len(body)

        async def fetch(url: HttpsAddress, places: list[ImagePlace]) -> None:
            nonlocal total
            async with self._turn(client):
                image = await self._fetcher.fetch(url, places[0].path)
            total += len(places) * 4 * (len(image.content) + 2) // 3
            self._check_size(total, take)
            for place in places:
                place.put(image)

        tasks = [asyncio.ensure_future(fetch(*each)) for each in zip(urls, by_address.values(), strict=True)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return msgspec.json.encode(document)

    @contextlib.asynccontextmanager
    async def _turn(self, client: str) -> AsyncIterator[None]:
        if not self._queue.enter(_QUEUE, client, _PLACES):
            try:
                await self._queue.wait(_QUEUE, client)
            except Refusal:
                cause = "Too many requests wait for their images already."
                raise Refusal(Code.TOO_MANY_WAITING, cause, retry_after=RETRY_AFTER_SECONDS) from None
        try:
            yield
        finally:
            self._queue.leave(_QUEUE, client)

    def _check_size(self, size: int, take: Callable[[int], None]) -> None:
        if size > self._max_body_bytes:
            cause = f"The request with its images may have at most {self._max_body_bytes} bytes."
            raise Refusal(Code.REQUEST_TOO_LARGE, cause)
        take(size)
