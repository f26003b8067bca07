"""Reads a request of the data path: its body, its limits of requests, and the deployment that answers it."""

from __future__ import annotations

import time
from functools import partial

import msgspec

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.gateway import anthropic
from xinference.gateway.auth.authentication import Views, check_model
from xinference.gateway.http.asgi import Receive, Reply, Scope
from xinference.gateway.http.content_encodings import decompressed
from xinference.gateway.http.request_body import (
    SMALL_BODY,
    BodyMemory,
    ClientLeftError,
    ClientWatch,
    check_content_type,
    read_body,
)
from xinference.gateway.http.scope_entries import TAKE_BODY
from xinference.gateway.media.embedding import ImageEmbedder
from xinference.gateway.rate_limits import Quota
from xinference.gateway.routes import DataPath, find
from xinference.https.network import Network
from xinference.keys.key import Key
from xinference.protocol.common_chats import CommonChat
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check, wrong_field
from xinference.protocol.requests import Named, Request
from xinference.routing.interfaces import Router
from xinference.routing.table import Route, RoutingTable

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: The name of a body's model.
_NAMED = msgspec.json.Decoder(Named)


class RequestReader:
    """Reads and checks requests of the data path, each with the permissions and limits of its key."""

    def __init__(
        self, router: Router, settings: Settings, quota: Quota, views: Views, image_network: Network | None
    ) -> None:
        """
        Args:
            views: the models that each key may use.
            image_network: in place of the real one, for images that requests name by an address.
        """
        self._router = router
        self._max_body_bytes = settings.max_body_bytes
        self._quota = quota
        self._views = views
        self._images = ImageEmbedder(settings, image_network) if settings.allow_media_urls else None
        self.bodies = BodyMemory(settings.max_bodies_bytes)
        """The memory of the bodies of all requests in flight; each answered request has to be given back."""

    async def read(
        self,
        path: DataPath,
        scope: Scope,
        headers: dict[bytes, bytes],
        receive: Receive,
        reply: Reply,
        key: Key | None,
    ) -> tuple[RoutingTable, Route, Request, bytes]:
        """The models that the key may use, the model of the request, the request, and its body.

        Raises:
            Refusal: the request is not valid, exceeds a limit, or its key does not permit it.
            ClientLeftError: the client disconnected before its request was read.
        """
        if scope["method"] != "POST":
            cause = f"{scope['path']} accepts POST, not {scope['method']}."
            raise Refusal(Code.METHOD_NOT_ALLOWED, cause, headers=((b"allow", b"POST"),))
        check_content_type(headers)
        if path.anthropic:
            anthropic.check_version(headers)
        counted_at = None
        if key is not None and (key.requests_per_minute or key.tokens_per_minute):
            counted_at = time.monotonic()
            with reply.figures.wait("quota"):
                await self._quota.take_request(key, counted_at)
        body = await read_body(receive, headers, self._max_body_bytes, self.bodies, reply, scope.get(TAKE_BODY))
        if b"content-encoding" in headers:
            body = decompressed(body, headers, self._max_body_bytes)
            if len(body) > SMALL_BODY:
                self.bodies.take(reply, len(body))
        if body[:3] == BYTE_ORDER_MARK:  # some editors and shells begin a file with it
            body = body[3:]
        reply.figures.bytes_in = len(body)
        try:
            request = check(path.decoder, body)
        except Refusal as refusal:
            if self._images is None or refusal.code != Code.MEDIA_ADDRESS:
                raise
            self._check_may_use(path, scope["path"], body, key, counted_at)
            client = key.key_id if key is not None else address(scope)
            with ClientWatch(scope, receive) as watch:
                body = await self._images.embed(body, client, partial(self.bodies.take, reply))
            if watch.left:
                raise ClientLeftError from None
            request = check(path.decoder, body)
        # The request itself is not noted: the figures stay in memory for a while after its end, and it may be long.
        if request.stream:
            reply.figures.is_stream = True
        if type(request) is not CommonChat or request.n is not None:
            reply.figures.note_choices(request)
        table = self._views.for_use(key, self._router.table)
        if key is not None:
            self._check_model(key, request.model, table, counted_at)
        return table, find(table, request.model, path.upstream, scope["path"]), request, body

    def _check_may_use(
        self, path: DataPath, written: str, body: bytes, key: Key | None, counted_at: float | None
    ) -> None:
        """Check that the model of a body exists and that the key permits it.

        Raises:
            Refusal: 400, 403, 404.
        """
        try:
            model = _NAMED.decode(body).model
        except msgspec.ValidationError as error:
            raise wrong_field(str(error)) from None
        table = self._views.for_use(key, self._router.table)
        if key is not None:
            self._check_model(key, model, table, counted_at)
        find(table, model, path.upstream, written)

    def _check_model(self, key: Key, model: str, table: RoutingTable, counted_at: float | None) -> None:
        """Check that the key permits the model; a request that it does not permit is not counted in its quota.

        Raises:
            Refusal: 403, 404.
        """
        try:
            check_model(key, model, table)
        except Refusal:
            if counted_at is not None:
                self._quota.give_back_request(key, counted_at)
            raise


def address(scope: Scope) -> str:
    """The name of a client without a key; all connections of one reverse proxy have the same."""
    client: tuple[str, int] | None = scope.get("client")
    return client[0] if client else ""
