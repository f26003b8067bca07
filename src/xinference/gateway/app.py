"""The gateway: an ASGI app without a framework, because a framework would cost more than the gateway's own work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote

from xinference.config import Settings
from xinference.gateway import anthropic, web_page
from xinference.gateway.auth import origin_check
from xinference.gateway.auth.authentication import Views
from xinference.gateway.auth.peer import is_from_own_user
from xinference.gateway.auth.permissions import ASK, Access, Need, required_access
from xinference.gateway.balancer import Balancer
from xinference.gateway.crash_memory import CrashMemory
from xinference.gateway.data_requests import DataRequests
from xinference.gateway.forward import Forwarder
from xinference.gateway.http.asgi import ASGIApp, Receive, Reply, Scope, Send
from xinference.gateway.http.cors import AllowedOrigins, answer_preflight, is_preflight, with_origin
from xinference.gateway.http.engine_pool import EnginePool, NodeTls
from xinference.gateway.http.error_replies import refuse, refuse_management
from xinference.gateway.http.last_answers import ManagementAnswer, Shutdown
from xinference.gateway.http.request_body import closing
from xinference.gateway.http.scope_entries import (
    READ_PAUSE,
    WRITE,
    WRITE_WHOLE,
)
from xinference.gateway.http.server import trust_proxy
from xinference.gateway.limited_forward import LimitedForwarder
from xinference.gateway.metrics import CONTENT_TYPE, Metrics
from xinference.gateway.path_methods import refused_method
from xinference.gateway.probes import answer_probe
from xinference.gateway.rate_limits import LocalQuota, Quota
from xinference.gateway.refusal_counter import RefusalCounter
from xinference.gateway.request_admission import RequestAdmission
from xinference.gateway.request_reader import RequestReader
from xinference.gateway.request_records import Recorder
from xinference.gateway.responses.resource import ResponseResource
from xinference.gateway.routes import DATA_PATHS, PROBES, READ_METHODS, READ_PAUSES, DataPath
from xinference.gateway.unserved_paths import unserved
from xinference.https.network import Network
from xinference.keys.key import Key
from xinference.keys.table import Keys, NoKeys
from xinference.keys.visibility import SCOPE_KEY
from xinference.protocol.errors import Refusal
from xinference.records.hub import RecordHub
from xinference.routing.abortable_requests import AbortableRequests
from xinference.routing.interfaces import Router
from xinference.routing.table import RoutingTable

#: Paths on which clients of OpenAI's API may ask: they read OpenAI's errors only.
OPENAI_PATHS = ("/v1/", "/chat/")
#: The path of a kept response begins with it.
RESPONSES = "/v1/responses/"
#: Paths of the management API whose rest is a name, which may be the path of a file on this machine.
ENGINES_OF_NAME = "/v1/engines/"


class Gateway:
    """The server's ASGI app: serves the data path and passes every other request to `management`."""

    def __init__(
        self,
        router: Router,
        settings: Settings,
        management: ASGIApp,
        keys: Keys | None = None,
        running: AbortableRequests | None = None,
        *,
        quota: Quota | None = None,
        metrics: Metrics | None = None,
        recorder: Recorder | None = None,
        balancer: Balancer | None = None,
        crashes: CrashMemory | None = None,
        is_owner: Callable[[Scope], bool] = is_from_own_user,
        shutdown: Shutdown | None = None,
        image_network: Network | None = None,
        node_tls: NodeTls | None = None,
    ) -> None:
        """
        Args:
            is_owner: whether a request without a key is from the server's own user.
            recorder: makes the records of the requests; None: they are only counted in `metrics`.
            image_network: in place of the real one, for images that requests name by an address.
            node_tls: for connections to other nodes; None: there are none.
            shutdown: that of the HTTP server.
        """
        self._router = router
        self._shutdown = shutdown or Shutdown()
        self.quota: Quota = quota or LocalQuota()
        self.refusals = RefusalCounter()
        self._views = Views()
        self._management = trust_proxy(management)
        self._admission = RequestAdmission(router, settings, keys or NoKeys(), is_owner)
        self._origins = AllowedOrigins(settings.allow_origin) if settings.allow_origin else None
        self._pool = EnginePool(node_tls)
        self._responses = ResponseResource()
        self.balancer = balancer or Balancer()
        """Chooses replicas and counts the requests at each."""
        self.balancer.last_bytes = self._pool.last_bytes
        self._forwarder = Forwarder(router, settings, self._pool, self.balancer, crashes or CrashMemory())
        self._running = running or AbortableRequests()
        self.balancer.forgotten = self._forwarder.placements.forget
        hub = RecordHub()
        self.recorder = recorder or Recorder(hub.publish)
        self.metrics = metrics or Metrics(
            lambda: router.table,
            lambda: self.balancer,
            hub.totals,
            active=self.recorder.active,
            affinity=self.balancer.take_affinity,
        )
        self.metrics.add(self._forwarder.placements.metrics)
        reader = RequestReader(router, settings, self.quota, self._views, image_network)
        self._bodies = reader.bodies
        self._data_requests = DataRequests(
            router,
            reader,
            self._forwarder,
            LimitedForwarder(router, settings, self.quota, self._forwarder, self._running),
            self._responses,
            self.recorder,
            self.refusals,
            self._shutdown,
        )

    def use_table(self) -> None:
        """Take the newest table for the requests that wait; each further request reads it itself."""
        self._forwarder.use_table()

    async def close(self) -> None:
        """Close the connections to engines."""
        self.recorder.flush()
        self._forwarder.placements.close()
        await self._pool.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind != "http":
            await self._pass_other_scope(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        data_path = DATA_PATHS.get(path)
        if data_path is None and ("//" in path or (len(path) > 1 and path[-1] == "/" and path != web_page.ROOT)):
            # Before anything is decided by the path.
            path = scope["path"] = tidy(path)
            scope["raw_path"] = quote(path).encode()
            data_path = DATA_PATHS.get(path)
        headers = scope.get("headers", ())
        named = dict(headers)
        origin = self._origins.find(headers) if self._origins is not None else None
        if origin is not None:
            if is_preflight(method, headers):
                await answer_preflight(send, origin, headers)
                return
            send = with_origin(send, origin)
        refusal = None
        if self._admission.guarded and not (len(named) == len(headers) and origin_check.is_usual(named)):
            refusal = self._admission.refusal_of_origin(headers, is_allowed=origin is not None)
        if refusal is not None:
            await _refuse_unadmitted(refusal, data_path, send, openai=True)
            return
        if data_path is None and web_page.is_asked_for(method, path, named):
            await web_page.answer(Reply(send), method, path, named)
            return
        try:
            access = ASK if data_path is not None else required_access(method, path)
            key = self._admission.admit(access, scope)
        except Refusal as why:
            why.headers += closing(headers)
            self.refusals.add(why.code, why.status)
            if data_path is None and anthropic.is_asked(path, named):
                await refuse(Reply(send, anthropic=True), why)
            else:
                await _refuse_unadmitted(why, data_path, send, openai=path.startswith(OPENAI_PATHS))
            return
        if data_path is not None:
            figures = self.recorder.begin(path, "" if key is None else key.key_id)
            if self.recorder.sampling is not None:
                figures.span = self.recorder.sampling.span(named.get(b"traceparent", b""))
            reply = Reply(
                send,
                anthropic=data_path.anthropic,
                write=scope.get(WRITE),
                write_whole=scope.get(WRITE_WHOLE),
                figures=figures,
            )
            await self._data_requests.serve(data_path, scope, named, receive, reply, key)
        else:
            await self._answer_other(key, scope, named, receive, send)

    async def _answer_other(
        self, key: Key | None, scope: Scope, named: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """Answer an admitted request that asks no model; `named`: its headers."""
        path, method = scope["path"], scope["method"]
        if path in PROBES:
            await answer_probe(Reply(send), method, path, is_stopping=self._shutdown.begun)
        elif (refusal := refused_method(method, path)) is not None:
            await refuse(Reply(send, anthropic=anthropic.is_asked(path, named)), refusal)
        elif path == "/metrics":
            self.recorder.flush()
            text = await self.metrics.scrape()
            await Reply(send).whole(200, text, kind=(b"content-type", CONTENT_TYPE), head=method == "HEAD")
        elif method in READ_METHODS and anthropic.reads_models(path, named):
            table = self._views.for_reading(key, self._router.table)
            await _anthropic_models(table, scope, Reply(send, anthropic=True))
        elif path == "/v1/models" and method in READ_METHODS:
            listing = self._views.for_reading(key, self._router.table).listing
            await Reply(send).whole(200, listing, head=method == "HEAD")
        elif (unknown := unserved(path)) is not None:
            is_anthropic = path.startswith("/v1/messages/") or anthropic.is_asked(path, named)
            await refuse(Reply(send, anthropic=is_anthropic), unknown)
        elif path.startswith(RESPONSES):
            await self._responses.answer(
                Reply(send), method, path.removeprefix(RESPONSES), None if key is None else key.key_id
            )
        else:
            scope[SCOPE_KEY] = key
            if path in READ_PAUSES:
                scope[READ_PAUSE] = READ_PAUSES[path]
            await self._manage(scope, receive, ManagementAnswer(send))

    async def _manage(self, scope: Scope, receive: Receive, answer: ManagementAnswer) -> None:
        try:
            await self._management(scope, receive, answer.send)
        except asyncio.CancelledError:
            if not self._shutdown.answers_end:
                raise
            await answer.end()

    async def _pass_other_scope(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass scopes other than HTTP to `management`: the application's lifespan, and web sockets."""
        if scope["type"] != "lifespan":
            try:
                headers = scope.get("headers", ())
                if self._admission.guarded and (refusal := self._admission.refusal_of_origin(headers)):
                    raise refusal
                self._admission.admit(Access(Need.MANAGE), scope)
            except Refusal as why:
                await send({"type": "websocket.close", "code": 1008, "reason": why.cause[:100]})
                return
        await self._management(scope, receive, send)


def tidy(path: str) -> str:
    """Remove empty parts from a path: base URLs are often written with a slash at their end."""
    if path.startswith(ENGINES_OF_NAME):
        return path
    return "/" + "/".join(filter(None, path.split("/")))


async def _refuse_unadmitted(refusal: Refusal, data_path: DataPath | None, send: Send, *, openai: bool) -> None:
    """Refuse a request in the form of its path; `openai`: a path without data is one of OpenAI's clients, too."""
    if data_path is None:
        await refuse_management(Reply(send), refusal, openai=openai)
    else:
        await refuse(Reply(send, anthropic=data_path.anthropic), refusal)


async def _anthropic_models(table: RoutingTable, scope: Scope, reply: Reply) -> None:
    try:
        answer = anthropic.models(table, scope["path"], scope.get("query_string", b""))
        await reply.whole(200, answer, head=scope["method"] == "HEAD")
    except Refusal as refusal:
        await refuse(reply, refusal)
