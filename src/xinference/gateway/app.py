"""The gateway: raw ASGI in front of everything, because a framework costs more than the work itself here."""

from __future__ import annotations

import logging

from xinference.config import LOOPBACK_HOSTS, Settings
from xinference.control.routing import Router
from xinference.errors import Problem
from xinference.gateway import anthropic, guard
from xinference.gateway.asgi import JSON_TYPE, ASGIApp, Receive, Reply, Scope, Send
from xinference.gateway.body import ClientLeftError, ClientWatch, check_content_type, read_body
from xinference.gateway.errors import Refusal, refuse
from xinference.gateway.forward import Call, Forwarder
from xinference.gateway.pick import InFlight
from xinference.gateway.reshape import reshape
from xinference.gateway.route import DATA_PATHS, DataPath, find
from xinference.gateway.shapes import TokenIds, check
from xinference.gateway.tokens import convert
from xinference.gateway.translate import translate
from xinference.gateway.upstream import Upstream

logger = logging.getLogger(__name__)

HEALTH = b'{"status":"ok"}'
READ_METHODS = frozenset({"GET", "HEAD"})
#: Client headers that the engine gets. The client's own Authorization is for us and never goes further.
TO_ENGINE = (b"content-type", b"accept", b"anthropic-version", b"anthropic-beta")


class Gateway:
    """The server's ASGI app: serves the data path and hands every other request to `management`."""

    def __init__(self, router: Router, settings: Settings, management: ASGIApp) -> None:
        self._router = router
        self._settings = settings
        self._management = management
        self._guarded = settings.host in LOOPBACK_HOSTS or guard.is_loopback_name(settings.host)
        self._upstream = Upstream()
        self._forwarder = Forwarder(router, settings, self._upstream)

    @property
    def in_flight(self) -> InFlight:
        """How many requests each replica is working on."""
        return self._forwarder.in_flight

    async def close(self) -> None:
        """Close the connections to engines."""
        await self._upstream.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        refusal = guard.refusal(scope.get("headers", ())) if self._guarded and kind != "lifespan" else None
        if kind != "http":
            if refusal is not None:
                await send({"type": "websocket.close", "code": 1008, "reason": refusal.cause[:100]})
                return
            await self._management(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        data_path = DATA_PATHS.get(path)
        if refusal is not None:
            await refuse(Reply(send, anthropic=data_path is not None and data_path.anthropic), refusal)
        elif data_path is not None:
            await self._serve(data_path, scope, receive, Reply(send, anthropic=data_path.anthropic))
        elif path == "/health" and method in READ_METHODS:
            await Reply(send).whole(200, HEALTH, head=method == "HEAD")
        elif path == "/v1/models" and method in READ_METHODS:
            await Reply(send).whole(200, self._router.table.listing, head=method == "HEAD")
        elif path.startswith(anthropic.MODELS) and method in READ_METHODS:
            await self._anthropic_models(path, Reply(send, anthropic=True), head=method == "HEAD")
        else:
            await self._management(scope, receive, send)

    async def _serve(self, path: DataPath, scope: Scope, receive: Receive, reply: Reply) -> None:
        try:
            await self._answer(path, scope, receive, reply)
        except ClientLeftError:
            return
        except Problem as problem:
            await refuse(reply, problem)
        except Exception:  # the outermost guard: a bug of ours must not reach clients as text/plain
            logger.exception("unexpected error on %s", scope["path"])
            if not reply.started:
                await refuse(reply, Refusal("internal_error", 500, "The server made a mistake; its log says more."))

    async def _anthropic_models(self, path: str, reply: Reply, *, head: bool) -> None:
        try:
            await reply.whole(200, anthropic.models(self._router.table, path), head=head)
        except Refusal as refusal:
            await refuse(reply, refusal)

    async def _answer(self, path: DataPath, scope: Scope, receive: Receive, reply: Reply) -> None:
        """Read, check, find the deployment, forward."""
        if scope["method"] != "POST":
            cause = f"{scope['path']} takes POST, not {scope['method']}."
            raise Refusal("method_not_allowed", 405, cause, headers=((b"allow", b"POST"),))
        headers = dict(scope.get("headers", ()))
        check_content_type(headers)
        if path.anthropic:
            anthropic.check_version(headers)
        body = await read_body(receive, headers, self._settings.max_body_bytes)
        request = check(path.decoder, body)
        route = find(self._router.table, request.model, path.upstream)
        route, body = translate(self._router.table, route, request, body)
        to_engine = tuple((name, headers[name]) for name in TO_ENGINE if name in headers)
        if b"content-type" not in headers:
            to_engine += (JSON_TYPE,)
        call = Call(path, body, scope.get("query_string", b""), to_engine, reshape(route, request))
        async with ClientWatch(receive):
            if isinstance(request, TokenIds):
                await convert(self._forwarder, call, request, route, reply)
            else:
                await self._forwarder.forward(call, route, reply)
