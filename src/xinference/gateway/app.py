"""The gateway: an ASGI app without a framework, because a framework would cost more than the gateway's own work."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import quote

import msgspec

from xinference.config import Settings
from xinference.engines.dialects import dialect_of
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.gateway import anthropic, web_page
from xinference.gateway.answer_limits import limit_tokens, time_limit
from xinference.gateway.auth import origin_check
from xinference.gateway.auth.authentication import Views, admit, admit_without_keys, check_model, check_readable
from xinference.gateway.auth.browser_sessions import BrowserSessions
from xinference.gateway.auth.own_addresses import OwnAddresses
from xinference.gateway.auth.peer import is_forwarded, is_from_own_user
from xinference.gateway.auth.permissions import Access, Need, required_access
from xinference.gateway.auth.proxied import refusal_of_proxy
from xinference.gateway.balancer import Balancer
from xinference.gateway.choice_parts import split_choices
from xinference.gateway.crash_memory import CrashMemory
from xinference.gateway.divided_requests import divide
from xinference.gateway.engine_requests import EngineCall, for_deployment, prepare
from xinference.gateway.forward import ChoicePart, ForwardedCall, Forwarder
from xinference.gateway.http.asgi import JSON_TYPE, ASGIApp, Receive, Reply, Scope, Send
from xinference.gateway.http.content_encodings import decompressed
from xinference.gateway.http.cors import AllowedOrigins, answer_preflight, is_preflight, with_origin
from xinference.gateway.http.engine_pool import EnginePool, NodeTls
from xinference.gateway.http.error_replies import refuse, refuse_management
from xinference.gateway.http.last_answers import ManagementAnswer, Shutdown, end_answer
from xinference.gateway.http.request_body import (
    SMALL_BODY,
    BodyMemory,
    ClientLeftError,
    ClientWatch,
    check_content_type,
    closing,
    read_body,
)
from xinference.gateway.http.server import trust_proxy
from xinference.gateway.http.uvicorn_protocol import CONTENDED, WRITE, WRITE_WHOLE
from xinference.gateway.limited_forward import LimitedForwarder, end_aborted
from xinference.gateway.media.embedding import ImageEmbedder
from xinference.gateway.metrics import CONTENT_TYPE, Metrics
from xinference.gateway.probes import answer_probe
from xinference.gateway.rate_limits import LocalQuota, Quota
from xinference.gateway.refusal_counter import RefusalCounter
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.request_records import Recorder
from xinference.gateway.responses.answer import ResponseBuilder, as_response
from xinference.gateway.responses.resource import ResponseResource
from xinference.gateway.routes import DATA_PATHS, PROBES, READ_METHODS, RESPONSE_AS_CHAT, DataPath, find
from xinference.gateway.token_answers import with_token_answer
from xinference.gateway.unserved_paths import unserved
from xinference.hosts import is_loopback
from xinference.https.network import Network
from xinference.keys.key import Key
from xinference.keys.table import Keys, KeyTable, NoKeys
from xinference.keys.visibility import FROM_OWNER, SCOPE_KEY
from xinference.protocol.errors import Header, Refusal
from xinference.protocol.request_check import check, unreadable, wrong_field
from xinference.protocol.requests import Generation, Named, Request
from xinference.records.hub import RecordHub
from xinference.records.trace import Span
from xinference.routing.abortable_requests import AbortableRequests
from xinference.routing.interfaces import Router
from xinference.routing.table import Route, RoutingTable

log = logging.getLogger(__name__)

#: Paths on which clients of OpenAI's API may ask: they read OpenAI's errors only.
OPENAI_PATHS = ("/v1/", "/chat/")
#: The path of a kept response begins with it.
RESPONSES = "/v1/responses/"
#: Paths of the management API whose rest is a name, which may be the path of a file on this machine.
ENGINES_OF_NAME = "/v1/engines/"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: Maximum number of characters of an error's code in a record.
MAX_CODE = 100
#: Client headers that are passed to the engine. The client's Authorization is for the gateway and is never passed on.
TO_ENGINE = (
    b"content-type",
    b"accept",
    b"anthropic-version",
    b"anthropic-beta",
    b"traceparent",
    b"tracestate",
    b"x-request-id",
)


#: The name of a body's model.
_NAMED = msgspec.json.Decoder(Named)


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
        self._is_owner = is_owner
        self._shutdown = shutdown or Shutdown()
        self._keys = keys or NoKeys()
        self.quota: Quota = quota or LocalQuota()
        self.refusals = RefusalCounter()
        self._views = Views()
        self._settings = settings
        self._management = trust_proxy(management)
        self._guarded = is_loopback(settings.host)
        self._addresses = OwnAddresses(settings.allowed_origins)
        self._browsers = BrowserSessions(settings.port, self._addresses)
        self._origins = AllowedOrigins(settings.allow_origin) if settings.allow_origin else None
        self._bodies = BodyMemory(settings.max_bodies_bytes)
        self._pool = EnginePool(node_tls)
        self._responses = ResponseResource()
        self._images = ImageEmbedder(settings, image_network) if settings.allow_media_urls else None
        self.balancer = balancer or Balancer()
        """Chooses replicas and counts the requests at each."""
        self.balancer.last_bytes = self._pool.last_bytes
        self._forwarder = Forwarder(router, settings, self._pool, self.balancer, crashes or CrashMemory())
        self._running = running or AbortableRequests()
        self._limited = LimitedForwarder(router, settings, self.quota, self._forwarder, self._running)
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
        if self._guarded and not (len(named) == len(headers) and origin_check.is_usual(named)):
            refusal = origin_check.refusal(headers, is_allowed=origin is not None, addresses=self._addresses)
            refusal = refusal or refusal_of_proxy(self._keys.table, headers, self._settings)
        if refusal is not None:
            if data_path is None:
                await refuse_management(Reply(send), refusal, openai=True)
            else:
                await refuse(Reply(send, anthropic=data_path.anthropic), refusal)
            return
        if data_path is None and web_page.is_asked_for(method, path, named):
            await web_page.answer(Reply(send), method, path, named)
            return
        try:
            key = self._admit(required_access(method, path), scope)
        except Refusal as why:
            why.headers += closing(headers)
            self.refusals.add(why.code, why.status)
            if data_path is not None or path.startswith("/anthropic/"):
                await refuse(Reply(send, anthropic=data_path is None or data_path.anthropic), why)
            else:
                await refuse_management(Reply(send), why, openai=path.startswith(OPENAI_PATHS))
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
            await self._serve(data_path, scope, named, receive, reply, key)
        elif path in PROBES:
            await answer_probe(Reply(send), method, path, is_stopping=self._shutdown.begun)
        elif path == "/metrics" and method in READ_METHODS:
            self.recorder.flush()
            text = await self.metrics.scrape()
            await Reply(send).whole(200, text, kind=(b"content-type", CONTENT_TYPE), head=method == "HEAD")
        elif path == "/v1/models" and method in READ_METHODS:
            listing = self._views.for_reading(key, self._router.table).listing
            await Reply(send).whole(200, listing, head=method == "HEAD")
        elif path.startswith(RESPONSES):
            await self._responses.answer(
                Reply(send), method, path.removeprefix(RESPONSES), None if key is None else key.key_id
            )
        elif path.startswith(anthropic.MODELS) and method in READ_METHODS:
            table = self._views.for_reading(key, self._router.table)
            await _anthropic_models(table, path, Reply(send, anthropic=True), head=method == "HEAD")
        elif (unknown := unserved(path)) is not None:
            await refuse(Reply(send), unknown)
        else:
            scope[SCOPE_KEY] = key
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
                if self._guarded:
                    refusal = origin_check.refusal(headers, addresses=self._addresses)
                    if refusal := refusal or refusal_of_proxy(self._keys.table, headers, self._settings):
                        raise refusal
                self._admit(Access(Need.MANAGE), scope)
            except Refusal as why:
                await send({"type": "websocket.close", "code": 1008, "reason": why.cause[:100]})
                return
        await self._management(scope, receive, send)

    def _admit(self, access: Access, scope: Scope) -> Key | None:
        """The key of this request, after one look-up; None: no key is required.

        Raises:
            Refusal: 401, 403.
        """
        table = self._keys.table
        if not table.required:
            if not self._guarded or access.need is Need.ASK or access.need is Need.NOTHING:
                return None
            return self._admit_without_keys(table, access, scope)
        now = time.time()
        key = admit(
            table, access, scope.get("headers", ()), now, method=scope.get("method", ""), browsers=self._browsers
        )
        if key is None:
            return None
        self._keys.used(key, now)
        if access.model is not None:
            check_readable(key, access.model, self._router.table.routes)
        return key

    def _admit_without_keys(self, table: KeyTable, access: Access, scope: Scope) -> Key | None:
        headers = scope.get("headers", ())

        def is_owner() -> bool:
            scope[FROM_OWNER] = not is_forwarded(headers) and self._is_owner(scope)
            return bool(scope[FROM_OWNER])

        return admit_without_keys(
            table,
            access,
            headers,
            time.time(),
            is_owner=is_owner,
            method=scope.get("method", ""),
            browsers=self._browsers,
        )

    async def _serve(
        self,
        path: DataPath,
        scope: Scope,
        headers: dict[bytes, bytes],
        receive: Receive,
        reply: Reply,
        key: Key | None,
    ) -> None:
        figures = reply.figures
        try:
            await self._answer(path, scope, headers, receive, reply, key)
        except ClientLeftError:
            figures.client_left = True
        except Problem as problem:
            self.refusals.add(problem.code, problem.status)
            # An engine's own error may have any code, or none.
            figures.code = (problem.code or Code.ENGINE_ERROR)[:MAX_CODE]
            if not reply.started:
                await refuse(reply, problem)
            else:  # the client sees that the answer is incomplete
                log.error("an answer on %s was left incomplete: %s", scope["path"], problem)
        except asyncio.CancelledError:
            if not self._shutdown.answers_end:
                figures.client_left = True
                raise
            figures.code = Code.SERVER_STOPPING
            await end_answer(reply)
        except (msgspec.ValidationError, RecursionError) as error:
            # A part of the body that the first check has skipped, such as the number 1e999 in an unknown field.
            if reply.started:
                figures.code = Code.INTERNAL_ERROR
                log.exception("an answer on %s was left incomplete", scope["path"])
            else:
                refusal = unreadable(error)
                figures.code = refusal.code
                await refuse(reply, refusal)
        except Exception:  # the outermost guard: a client must get JSON, not text/plain, for a bug in the server
            figures.code = Code.INTERNAL_ERROR
            log.exception("unexpected error on %s", scope["path"])
            if not reply.started:
                await refuse(
                    reply,
                    Refusal(Code.INTERNAL_ERROR, "The server failed because of a defect; its log has the details."),
                )
        finally:
            if self._bodies.held:
                self._bodies.give_back(reply)
            self.recorder.end(figures, reply.status)

    async def _answer(
        self,
        path: DataPath,
        scope: Scope,
        headers: dict[bytes, bytes],
        receive: Receive,
        reply: Reply,
        key: Key | None,
    ) -> None:
        """Read and check the request, find its deployment, forward it."""
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
                await self.quota.take_request(key, counted_at)
        body = await read_body(receive, headers, self._settings.max_body_bytes, self._bodies, reply)
        if b"content-encoding" in headers:
            body = decompressed(body, headers, self._settings.max_body_bytes)
            if len(body) > SMALL_BODY:
                self._bodies.take(reply, len(body))
        if body[:3] == BYTE_ORDER_MARK:  # some editors and shells begin a file with it
            body = body[3:]
        figures = reply.figures
        figures.bytes_in = len(body)
        try:
            request = check(path.decoder, body)
        except Refusal as refusal:
            if self._images is None or refusal.code != Code.MEDIA_ADDRESS:
                raise
            self._check_may_use(path, body, key, counted_at)
            client = key.key_id if key is not None else _address(scope.get("client"))
            with ClientWatch(scope, receive) as watch:
                body = await self._images.embed(body, client, partial(self._bodies.take, reply))
            if watch.left:
                raise ClientLeftError from None
            request = check(path.decoder, body)
        figures.request = request
        table = self._views.for_use(key, self._router.table)
        if key is not None:
            try:
                check_model(key, request.model, table)
            except Refusal:
                if counted_at is not None:
                    self.quota.give_back_request(key, counted_at)
                raise
        route = find(table, request.model, path.upstream)
        figures.model = route.uid
        if request.model != route.uid:
            request, body = for_deployment(route, request, body)
        builder: ResponseBuilder | None = None
        if path.is_response:
            path = RESPONSE_AS_CHAT
            builder, request, document = self._responses.as_chat(
                body, request.model, None if key is None else key.key_id
            )
        else:
            document = RequestDocument(body)
        is_limited = (
            route.max_output_tokens is not None
            or route.max_request_seconds is not None
            or (key is not None and (key.max_output_tokens is not None or key.max_request_seconds is not None))
        )
        if is_limited:
            limit_tokens(key, route, request, document, dialect_of(route.engine), is_response=builder is not None)
        prepared = prepare(table, route, request, document)
        parts: tuple[ChoicePart, ...] = ()
        if 0 < route.slots < prepared.choices:
            assert isinstance(request, Generation)
            parts = split_choices(request, body, prepared.route, partial(self._prepare_part, route, key))
        if builder is not None:
            prepared = as_response(prepared, builder, is_stream=bool(request.stream))
        elif path.is_tokens:
            prepared = with_token_answer(prepared, request, route)
        to_engine: tuple[Header, ...] = () if b"content-type" in headers else (JSON_TYPE,)
        for name in TO_ENGINE:
            if name in headers:
                to_engine += ((name, headers[name]),)
        if figures.span is not None:
            to_engine = with_span(to_engine, figures.span)
        call = ForwardedCall(
            path,
            prepared.body,
            scope.get("query_string", b""),
            to_engine,
            prepared.answer,
            prepared.events,
            key.key_id if key is not None else _address(scope.get("client")),
            time_limit=time_limit(key, route) if is_limited else None,
            parts=parts,
        )
        if path.has_inputs and not parts:
            division = divide(request, body, prepared.route, partial(self._prepare_part, route, key))
            call = call if division is None else msgspec.structs.replace(call, division=division)
        queue, uid = self._forwarder.queue, route.parent or route.uid
        scope[CONTENDED] = lambda: queue.is_contended(uid)
        request_id = request.request_id
        if not request_id and b"x-request-id" in headers:
            request_id = headers[b"x-request-id"].decode("latin-1")
        with ClientWatch(scope, receive) as watch:
            figures.watch = watch
            if request_id:
                await self._limited.forward_abortably(request_id, call, request, prepared.route, reply, key)
            else:
                await self._limited.forward(call, request, prepared.route, reply, key)
        if watch.left:
            figures.client_left = True
        elif watch.aborted:
            await end_aborted(f"The request {self.recorder.id_of(figures)} was aborted.", request, reply)

    def _prepare_part(self, route: Route, key: Key | None, request: Request, body: bytes) -> EngineCall:
        document = RequestDocument(body)
        limit_tokens(key, route, request, document, dialect_of(route.engine))
        return prepare(self._router.table, route, request, document)

    def _check_may_use(self, path: DataPath, body: bytes, key: Key | None, counted_at: float | None) -> None:
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
            try:
                check_model(key, model, table)
            except Refusal:
                if counted_at is not None:
                    self.quota.give_back_request(key, counted_at)
                raise
        find(table, model, path.upstream)


def _address(client: tuple[str, int] | None) -> str:
    """The name of a client without a key; all connections of one reverse proxy have the same."""
    return client[0] if client else ""


def with_span(headers: tuple[Header, ...], span: Span) -> tuple[Header, ...]:
    """The headers for the engine, whose spans are below that of the request."""
    return (*(header for header in headers if header[0] != b"traceparent"), (b"traceparent", span.header))


def tidy(path: str) -> str:
    """Remove empty parts from a path: base URLs are often written with a slash at their end."""
    if path.startswith(ENGINES_OF_NAME):
        return path
    return "/" + "/".join(filter(None, path.split("/")))


async def _anthropic_models(table: RoutingTable, path: str, reply: Reply, *, head: bool) -> None:
    try:
        await reply.whole(200, anthropic.models(table, path), head=head)
    except Refusal as refusal:
        await refuse(reply, refusal)
