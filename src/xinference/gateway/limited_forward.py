"""Forwards requests within the limits of their model and their key, and ends those that are aborted."""

from __future__ import annotations

import time

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.gateway.choice_parts import forward_choices
from xinference.gateway.forward import ForwardedCall, Forwarder
from xinference.gateway.http.asgi import Reply
from xinference.gateway.rate_limits import Quota
from xinference.gateway.split_requests import forward_divided, forward_split
from xinference.gateway.token_usage import spent_tokens
from xinference.keys.key import Key
from xinference.protocol.errors import Refusal, stream_error
from xinference.protocol.requests import Request
from xinference.routing.abortable_requests import AbortableRequests
from xinference.routing.interfaces import Router
from xinference.routing.table import Route


class LimitedForwarder:
    """Takes the permits of a request, forwards it, and gives them back."""

    def __init__(
        self, router: Router, settings: Settings, quota: Quota, forwarder: Forwarder, running: AbortableRequests
    ) -> None:
        self._router = router
        self._settings = settings
        self._quota = quota
        self._forwarder = forwarder
        self._running = running

    async def forward(self, call: ForwardedCall, request: Request, route: Route, reply: Reply, key: Key | None) -> None:
        """Forward within the limits of the model and the key."""
        if key is None and route.request_limits is None:
            await self._forward(call, request, route, reply)
        elif key is not None and (at_once := key.requests_in_flight or self._settings.key_requests_in_flight):
            async with self._quota.key_permit(key, at_once):
                await self._pass_within_model(call, request, route, reply, key)
        else:
            await self._pass_within_model(call, request, route, reply, key)

    async def _pass_within_model(
        self, call: ForwardedCall, request: Request, route: Route, reply: Reply, key: Key | None
    ) -> None:
        if route.request_limits is None and (key is None or key.tokens_per_minute is None):
            await self._forward(call, request, route, reply)
            return
        async with self._quota.permit(route):
            # The wait for the permit may have taken long: use the newest table's route.
            route = self._router.table.routes.get(route.uid, route)
            try:
                await self._forward(call, request, route, reply)
            finally:
                if key is not None and key.tokens_per_minute is not None:
                    self._quota.spend_tokens(key, spent_tokens(reply, len(call.body)), time.monotonic())

    async def forward_abortably(
        self, request_id: str, call: ForwardedCall, request: Request, route: Route, reply: Reply, key: Key | None
    ) -> None:
        async with self._running.abortable(route.uid, request_id) as abortable:
            await self.forward(call, request, route, reply, key)
        if abortable.aborted:
            await end_aborted(f"The request {request_id} was aborted.", request, reply)

    async def _forward(self, call: ForwardedCall, request: Request, route: Route, reply: Reply) -> None:
        if call.path.is_split:
            await forward_split(self._forwarder, call, request, route, reply)
        elif call.parts:
            await forward_choices(self._forwarder, call, request, route, reply)
        elif call.division is not None:
            await forward_divided(self._forwarder, call, call.division, route, reply)
        else:
            await self._forwarder.forward(call, route, reply)


async def end_aborted(message: str, request: Request, reply: Reply) -> None:
    """End the answer to a request that was aborted.

    Raises:
        Refusal: the answer has not begun.
    """
    reply.figures.code = Code.REQUEST_ABORTED
    if not reply.started:
        raise Refusal(Code.REQUEST_ABORTED, message)
    if request.stream:
        await reply.end(stream_error(message, "request_aborted", anthropic=reply.anthropic))
