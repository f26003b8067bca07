"""Forwards one request to one deployment: chooses a replica, relays the answer, retries if the replica is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from xinference.config import Settings
from xinference.engines.dialect import BytesRewrite
from xinference.engines.dialects import dialect_of
from xinference.error_codes import Code
from xinference.errors import Problem, known_code
from xinference.gateway.answer_limits import TimeLimit
from xinference.gateway.balancer import Balancer
from xinference.gateway.crash_memory import CrashMemory, is_listening
from xinference.gateway.engine_answers import MAX_ERROR_BYTES, check_status, read_error, rewritten
from xinference.gateway.fair_queue import FairQueue, Turn
from xinference.gateway.http.asgi import Reply
from xinference.gateway.http.engine_pool import EngineAnswer, EngineDiedError, EnginePool, EngineUnreachableError
from xinference.gateway.http.request_figures import RequestFigures
from xinference.gateway.placements import Placements
from xinference.gateway.places import places
from xinference.gateway.priority import HIGH, NORMAL
from xinference.gateway.routes import FREE, DataPath
from xinference.gateway.stream import OnDeath, end_text, relay_bytes, relay_events
from xinference.gateway.tool_support import check_tools_again
from xinference.protocol.errors import Header, Refusal
from xinference.routing.interfaces import Router
from xinference.routing.table import Route, Target

if TYPE_CHECKING:
    from xinference.gateway.divided_requests import Division

#: Maximum time in which the controller notices that an engine no longer listens.
NOTICE_SECONDS = 2.0
NOTICE_POLL_SECONDS = 0.02
#: Maximum time until the routing table has the reason of an engine's exit.
REASON_SECONDS = 2.0
#: Headers that forbid proxies in front of the server to buffer or cache events.
STREAM_HEADERS: tuple[Header, ...] = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


@dataclass(frozen=True, slots=True)
class ChoicePart:
    """One part of a request for several choices, in the engine's dialect."""

    body: bytes
    answer: BytesRewrite | None
    events: BytesRewrite | None
    first: int
    """The number of choices of the parts before it, for each prompt."""
    count: int
    division: Division | None = None
    """The parts of this part, if it has many inputs."""


class ForwardedCall(msgspec.Struct, frozen=True):
    """One checked request. A struct, because every request makes one: a frozen dataclass costs ten times as much."""

    path: DataPath
    body: bytes
    query: bytes
    headers: tuple[Header, ...]
    """The client headers that are passed to the engine."""
    answer: BytesRewrite | None = None
    """Rewrites the whole answer; None: its bytes are passed on as they arrive."""
    events: BytesRewrite | None = None
    """Rewrites the complete server-sent events of a stream; None: they are passed on unchanged."""
    client: str = ""
    """The key or the address of the client, whose requests have a turn together."""
    division: Division | None = None
    """The parts in which the engine gets the request; None: it gets the whole of it."""
    time_limit: TimeLimit | None = None
    """The time that engines may spend on the call; the wait for a turn does not count."""
    parts: tuple[ChoicePart, ...] = ()
    """The parts in place of the body, which are forwarded one after the other; empty: the body is."""
    priority: int = NORMAL
    """The level in the queue for a place; see `gateway.priority`."""


class Forwarder:
    """Forwards calls to engines."""

    def __init__(
        self, router: Router, settings: Settings, pool: EnginePool, balancer: Balancer, crashes: CrashMemory
    ) -> None:
        self._router = router
        self._settings = settings
        self._pool = pool
        self._balancer = balancer
        self._crashes = crashes
        self.placements = Placements(settings, pool, lambda: router.table.routes)
        self.queue = FairQueue(settings.max_queued_requests)
        """The requests that wait for a place at an engine."""

    def use_table(self) -> None:
        """Send waiting requests to the replicas that the newest table has in addition."""
        routes = self._router.table.routes
        for uid in self.queue.contended:
            route = routes.get(uid)
            if route is not None and route.targets:
                self.queue.set_places(uid, places(route))

    def newest(self, route: Route) -> Route:
        """The route of the newest table, for a further part of a request; `route` if the model is gone."""
        return self._router.table.routes.get(route.uid, route)

    async def forward(self, call: ForwardedCall, route: Route, reply: Reply) -> None:
        """Answer `call` from one of the route's replicas, when it is the client's turn.

        If a replica cannot be reached, the next one is tried; after the last one, the call waits once until the
        controller has started another. A lost connection is retried once, unless the engine has crashed: the request
        may be the cause, so no other engine gets it, and the same request is refused from then on.

        Raises:
            Refusal: no replica has answered, and nothing has been sent to the client.
        """
        if self._crashes.suspects:
            self._check_not_suspected(call, route)
        if not route.targets:
            before, route = route, await self._ready(route, reply.figures)
            self._check_not_suspected(call, route)
            check_tools_again(before, route, call.body, forces_calls=dialect_of(route.engine).forces_calls)
        uid = route.parent or route.uid
        if call.path.upstream in FREE:
            uid = ""  # the path runs no model, so the request needs no place
            reply.figures.is_free = True
        turn: Turn | None = None
        if uid and not self.queue.enter(uid, call.client, places(route), call.priority):
            route, turn = await self._take_turn(call, route, uid, reply.figures)
        limit = call.time_limit
        if limit is not None:
            limit.start()
        try:
            tried: tuple[Target, ...] = ()  # few: a tuple costs less than a set
            lost = waited = False
            while True:
                # One with high priority gets a slot that is free: the reserved one may be that of any replica.
                slots = route.slots if call.priority == HIGH else 0
                target = self._balancer.choose(route.targets, tried, call.body, call.path.prompt_field, slots)
                if target is None:
                    if lost or waited:
                        raise _died(route.uid) if lost else _unreachable(route.uid)
                    route, waited = await self._replacement(route, reply.figures), True
                    self._check_not_suspected(call, route)
                    tried = ()
                    continue
                tried += (target,)
                try:
                    return await self._attempt(call, route, target, reply, uid, turn)
                except EngineUnreachableError:
                    self._balancer.failed(route.targets, target)
                    continue
                except EngineDiedError:
                    if lost:
                        raise _died(route.uid) from None
                    lost = True
                    if len(route.targets) == 1:
                        # The engine may be alive and have closed an idle connection at this moment.
                        tried = ()
        except asyncio.CancelledError:
            if limit is None or not limit.takes_cancellation():
                raise
            await limit.end(reply, route.uid)
        finally:
            if limit is not None:
                limit.stop()
            if uid:
                self.queue.leave(uid, call.client, call.priority, turn)

    async def _take_turn(
        self, call: ForwardedCall, route: Route, uid: str, figures: RequestFigures
    ) -> tuple[Route, Turn]:
        """Wait for a place; returns the route as it is then, with targets, and the turn."""
        with figures.wait("permit"):
            turn = await self.queue.wait(uid, call.client, call.priority)
        try:
            now = self._router.table.routes.get(route.uid)
            if now is None:
                raise _gone(route.uid)
            now = await self._ready(now, figures)
            self._check_not_suspected(call, now)
            return now, turn
        except BaseException:
            self.queue.leave(uid, call.client, call.priority, turn)
            raise

    async def _attempt(
        self, call: ForwardedCall, route: Route, target: Target, reply: Reply, uid: str, turn: Turn | None
    ) -> None:
        """Send the call to one target, and relay the answer.

        Args:
            uid: the model in the queue.
            turn: that of the call in the queue; None: it got its place without a wait, or needs none.
        """
        self._balancer.begin(target)
        answer, placed, figures, body = None, None, reply.figures, call.body
        figures.replica = target.replica_id
        try:
            if route.state_bytes and self.placements.is_on:
                placed = await self.placements.place(
                    call.path.upstream, body, call.client, route, target, call.priority
                )
                body = body if placed is None else placed.body
            answer = await self._pool.post(target, call.path.upstream, call.query, call.headers, body)
            figures.connection = answer.connection
            self._balancer.reached(target)
            if answer.status != 200:
                check_status(route.uid, answer.status)
            if answer.status >= 400:
                raise await _engine_refusal(answer, call, route)
            if call.priority == HIGH and turn is not None:
                self.queue.begin_answer(uid, turn)
            await _relay(answer, call, route, reply, lambda: self._note_crash(call, route, target))
        except EngineDiedError:
            if (code := await self._note_crash(call, route, target)) is not None:
                raise _died(route.uid, code) from None
            raise
        except asyncio.CancelledError:
            if answer is None:  # the engine may go on with a request whose client has left
                self._crashes.leave(route, target, call.path.upstream, call.body)
            raise
        finally:
            if placed is not None:
                placed.end(complete=answer is not None and answer.at_end)
            if answer is not None:
                figures.leave_engine(answer.connection)
                answer.close()
            self._balancer.end(target)

    def _check_not_suspected(self, call: ForwardedCall, route: Route) -> None:
        """Refuse a request that has crashed an engine of this model.

        Raises:
            Refusal: 502 ``request_crashes_engine``.
        """
        if self._crashes.suspects and self._crashes.is_refused(route, call.path.upstream, call.body):
            raise _crashes(route.uid)

    async def _note_crash(self, call: ForwardedCall, route: Route, target: Target) -> str | None:
        """The code of the crash if the engine has crashed; the request is then remembered as a possible cause."""
        in_flight = self._balancer.count(target)
        code = await self._crash_code(route.uid, target)
        if code is not None:
            self._crashes.add(route, target, call.path.upstream, call.body, in_flight)
        return code

    async def _crash_code(self, uid: str, target: Target) -> str | None:
        """The code of the engine's crash; None: the engine runs, or its stop was requested."""
        code, is_target = self._look_up(uid, target)
        if code is not None or not is_target or await self._listens(target):
            return code
        until = time.monotonic() + REASON_SECONDS
        while code is None and is_target and time.monotonic() < until:
            await asyncio.sleep(NOTICE_POLL_SECONDS)
            code, is_target = self._look_up(uid, target)
        return code or Code.ENGINE_DIED

    async def _listens(self, target: Target) -> bool:
        """Whether the engine listens. The address of another node is that of its front door: only the node knows."""
        return await (self._pool.node_reaches(target) if target.server_name else is_listening(target))

    def _look_up(self, uid: str, target: Target) -> tuple[str | None, bool]:
        """The code of the target's crash, if the table names it, and whether it still is a target."""
        route = self._router.table.routes.get(uid)
        if route is None:
            return None, False
        codes = (crash.code for crash in route.crashes if crash.replica_id == target.replica_id)
        # A replica that is stopped or evicted is removed from the table before its engine exits.
        return next(codes, None), target in route.targets

    async def _ready(self, route: Route, figures: RequestFigures) -> Route:
        """`route` with targets; waits while the deployment is restarted, or while an on-demand model is loaded."""
        if route.targets:
            return route
        if route.problem is not None:
            raise _failed(route.uid, route.problem)
        if route.on_demand:
            with figures.wait("load"):
                return await self._wait(route, self._settings.on_demand_wait_seconds)
        if route.unloaded:
            raise _unloaded(route)
        if not route.recovering:
            cause = f"The model {route.uid!r} is not ready yet (stage: {route.stage})."
            raise Refusal(Code.MODEL_LOADING, cause, retry_after=route.retry_after)
        with figures.wait("recovery"):
            return await self._wait(route, self._settings.recover_seconds)

    async def _wait(self, route: Route, seconds: float) -> Route:
        try:
            return await self._router.ensure_ready(route.uid, seconds)
        except Problem as problem:
            now = self._router.table.routes.get(route.uid, route)
            retry_after = now.retry_after if problem.status in (429, 503) and now.problem is None else None
            # These hints name other models, which the request's key may not see.
            hint = None if problem.status == 404 or problem.code == Code.NO_ROOM else problem.hint
            raise Refusal(
                problem.code, problem.cause, status=problem.status, hint=hint, retry_after=retry_after
            ) from None

    async def _replacement(self, route: Route, figures: RequestFigures) -> Route:
        """Wait until the controller has noticed that no target of `route` can be reached; returns the new route."""
        until = time.monotonic() + min(NOTICE_SECONDS, self._settings.recover_seconds)
        while (now := self._router.table.routes.get(route.uid)) is not None:
            if now.targets != route.targets:
                return await self._ready(now, figures)
            if time.monotonic() >= until:
                raise _unreachable(route.uid)
            with figures.wait("recovery"):
                await asyncio.sleep(NOTICE_POLL_SECONDS)
        raise _gone(route.uid)


async def _relay(answer: EngineAnswer, call: ForwardedCall, route: Route, reply: Reply, on_death: OnDeath) -> None:
    if call.answer is not None:
        body = rewritten(call.answer, answer.first + await _read_rest(answer), route.uid)
        reply.figures.first = body
        await reply.whole(answer.status, body)
        return
    if answer.is_stream:
        headers = [header for header in answer.headers if header[0] != b"content-length"]
        reply.is_stream = True
        await reply.start(answer.status, (*headers, *STREAM_HEADERS))
        await relay_events(
            answer.read,
            answer.first,
            reply,
            done=call.path.done,
            model=route.uid,
            rewrite=call.events,
            on_death=on_death,
        )
        return
    if not answer.at_end:
        await reply.start(answer.status, answer.headers)
        await relay_bytes(answer.read, answer.first, reply, model=route.uid, on_death=on_death)
        return
    reply.figures.first = answer.first
    if not reply.complete(answer.status, answer.headers, answer.first):
        await reply.start(answer.status, answer.headers)
        await reply.end(answer.first)


async def _read_rest(answer: EngineAnswer) -> bytes:
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return b"".join(pieces)


async def _engine_refusal(answer: EngineAnswer, call: ForwardedCall, route: Route) -> Refusal:
    """Read the engine's error answer, at most its first 64 KiB, and make a refusal of it."""
    body = answer.first
    with contextlib.suppress(EngineDiedError):  # the bytes so far are used
        while len(body) < MAX_ERROR_BYTES and (chunk := await answer.read()):
            body += chunk
    is_response = call.path.is_response
    prompt_field = "input" if is_response else call.path.prompt_field
    return read_error(route, answer.status, body[:MAX_ERROR_BYTES], prompt_field, b"" if is_response else call.body)


def _failed(uid: str, problem: Problem) -> Refusal:
    return Refusal(Code.MODEL_FAILED, f"The model {uid!r} has failed: {problem.cause}", hint=problem.hint)


def _unloaded(route: Route) -> Refusal:
    return Refusal(
        Code.MODEL_UNLOADED,
        f"The model {route.uid!r} is unloaded.",
        hint=f"Load it with `xinference load {route.parent or route.uid}`.",
    )


def _gone(uid: str) -> Refusal:
    return Refusal(Code.MODEL_NOT_FOUND, f"The model {uid!r} is gone.", param="model")


def _died(uid: str, code: str = Code.ENGINE_DIED) -> Refusal:
    cause = f"The engine of model {uid!r} {end_text(code)} before it answered."
    return Refusal(known_code(code), cause, hint="Retry the request.")


def _crashes(uid: str) -> Refusal:
    return Refusal(
        Code.REQUEST_CRASHES_ENGINE,
        f"This request has crashed an engine of model {uid!r}, so it is not sent to another one.",
        hint="Change the request. It is accepted again after ten minutes, or after a new launch of the model.",
    )


def _unreachable(uid: str) -> Refusal:
    return Refusal(Code.ENGINE_DIED, f"The engine of model {uid!r} cannot be reached.", hint="Retry in a moment.")
