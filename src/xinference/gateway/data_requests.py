"""Answers a request of the data path: prepares it for its engine, forwards it, and ends its answer whatever happens."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import msgspec

from xinference.engines.dialects import dialect_of
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.gateway.answer_limits import limit_tokens, time_limit
from xinference.gateway.built_answers import with_builder
from xinference.gateway.choice_parts import split_choices
from xinference.gateway.divided_requests import divide
from xinference.gateway.engine_requests import EngineCall, for_deployment, prepare
from xinference.gateway.forward import ChoicePart, ForwardedCall, Forwarder
from xinference.gateway.http.asgi import JSON_TYPE, Receive, Reply, Scope
from xinference.gateway.http.error_replies import refuse
from xinference.gateway.http.last_answers import Shutdown, end_answer
from xinference.gateway.http.request_body import ClientLeftError, ClientWatch
from xinference.gateway.http.scope_entries import CONTENDED
from xinference.gateway.limited_forward import LimitedForwarder, end_aborted
from xinference.gateway.messages.translation import Complete, needs_chat, translate
from xinference.gateway.priority import NORMAL, priority_of
from xinference.gateway.refusal_counter import RefusalCounter
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.request_reader import RequestReader, address
from xinference.gateway.request_records import Recorder
from xinference.gateway.responses.resource import ResponseResource
from xinference.gateway.routes import RESPONSE_AS_CHAT, DataPath, as_chat, substitute
from xinference.gateway.token_answers import with_token_answer
from xinference.keys.key import NORMAL_PRIORITY, Key
from xinference.protocol.errors import Header, Refusal
from xinference.protocol.request_check import unreadable
from xinference.protocol.requests import Generation, Request
from xinference.records.trace import Span
from xinference.routing.interfaces import Router
from xinference.routing.table import Route

log = logging.getLogger(__name__)

#: Maximum number of characters of an error's code in a record.
MAX_CODE = 100
#: Client headers that are passed to the engine. The client's Authorization is for the gateway and is never passed on.
USUAL_TO_ENGINE = (b"content-type", b"accept")
RARE_TO_ENGINE = (b"anthropic-version", b"anthropic-beta", b"traceparent", b"tracestate", b"x-request-id")
_RARE = frozenset(RARE_TO_ENGINE)


class DataRequests:
    """Serves requests of the data path whose permission has been checked."""

    def __init__(
        self,
        router: Router,
        reader: RequestReader,
        forwarder: Forwarder,
        limited: LimitedForwarder,
        responses: ResponseResource,
        recorder: Recorder,
        refusals: RefusalCounter,
        shutdown: Shutdown,
    ) -> None:
        self._router = router
        self._reader = reader
        self._bodies = reader.bodies
        self._forwarder = forwarder
        self._limited = limited
        self._responses = responses
        self._recorder = recorder
        self._refusals = refusals
        self._shutdown = shutdown

    async def serve(
        self,
        path: DataPath,
        scope: Scope,
        headers: dict[bytes, bytes],
        receive: Receive,
        reply: Reply,
        key: Key | None,
    ) -> None:
        """Answer a request; `reply` gets the answer, or the error that ends it."""
        figures = reply.figures
        try:
            await self._answer(path, scope, headers, receive, reply, key)
        except ClientLeftError:
            figures.client_left = True
        except Problem as problem:
            self._refusals.add(problem.code, problem.status)
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
            self._recorder.end(figures, reply.status)

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
        table, route, request, body = await self._reader.read(path, scope, headers, receive, reply, key)
        figures = reply.figures
        figures.model = route.uid
        if request.model != route.uid:
            request, body = for_deployment(route, request, body)
        complete: Complete | None = None
        if path.is_response:
            path = RESPONSE_AS_CHAT
            builder, request, document = self._responses.as_chat(
                body, request.model, None if key is None else key.key_id
            )
            complete = partial(with_builder, builder=builder, is_stream=bool(request.stream))
        elif (
            path.anthropic
            and (other := (as_chat if needs_chat(request, body) else substitute)(route, path.upstream)) is not None
        ):
            path = other
            request, document, complete = translate(path, request, body)
        else:
            document = RequestDocument(body)
        is_limited = (
            route.max_output_tokens is not None
            or route.max_request_seconds is not None
            or (key is not None and (key.max_output_tokens is not None or key.max_request_seconds is not None))
        )
        if is_limited:
            limit_tokens(key, route, request, document, dialect_of(route.engine), is_response=path.is_response)
        priority = NORMAL
        # Most requests name none, so they are not worth a call.
        if (
            request.service_tier is not None
            or request.priority is not None
            or (key is not None and key.priority != NORMAL_PRIORITY)
        ):
            priority = priority_of(request, key)
        prepared = prepare(table, route, request, document, priority)
        parts: tuple[ChoicePart, ...] = ()
        if 0 < route.slots < prepared.choices:
            assert isinstance(request, Generation)
            parts = split_choices(request, body, prepared.route, partial(self._prepare_part, route, key, priority))
        if complete is not None:
            prepared = complete(prepared)
        elif path.is_tokens:
            prepared = with_token_answer(prepared, request, route)
        to_engine: tuple[Header, ...] = () if b"content-type" in headers else (JSON_TYPE,)
        for name in USUAL_TO_ENGINE if _RARE.isdisjoint(headers) else USUAL_TO_ENGINE + RARE_TO_ENGINE:
            if name in headers:
                to_engine += ((name, headers[name]),)
        if figures.span is not None:
            to_engine = with_span(to_engine, figures.span)
        if priority != NORMAL and (header := dialect_of(route.engine).priority_header) is not None:
            to_engine += ((header, b"%d" % (priority - NORMAL)),)
        call = ForwardedCall(
            path,
            prepared.body,
            scope.get("query_string", b""),
            to_engine,
            prepared.answer,
            prepared.events,
            key.key_id if key is not None else address(scope),
            time_limit=time_limit(key, route) if is_limited else None,
            parts=parts,
            priority=priority,
        )
        if path.has_inputs and not parts:
            division = divide(request, body, prepared.route, partial(self._prepare_part, route, key, priority))
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
            await end_aborted(f"The request {self._recorder.id_of(figures)} was aborted.", request, reply)

    def _prepare_part(self, route: Route, key: Key | None, priority: int, request: Request, body: bytes) -> EngineCall:
        document = RequestDocument(body)
        limit_tokens(key, route, request, document, dialect_of(route.engine))
        return prepare(self._router.table, route, request, document, priority)


def with_span(headers: tuple[Header, ...], span: Span) -> tuple[Header, ...]:
    """The headers for the engine, whose spans are below that of the request."""
    return (*(header for header in headers if header[0] != b"traceparent"), (b"traceparent", span.header))
