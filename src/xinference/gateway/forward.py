"""One request to one deployment: choose a replica, pass the bytes, and what to do when that replica is gone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from xinference.config import Settings
from xinference.errors import Problem
from xinference.gateway.balancer import Balancer
from xinference.gateway.engine_answers import MAX_ERROR_BYTES, Reshape, normalise
from xinference.gateway.http.asgi import Reply
from xinference.gateway.http.engine_pool import Answer, EngineDiedError, EngineUnreachableError, Upstream
from xinference.gateway.routes import DataPath
from xinference.gateway.stream import relay_bytes, relay_events
from xinference.protocol.errors import Header, Refusal
from xinference.routing.interfaces import Router
from xinference.routing.table import Route, Target

#: How long the controller may take to notice that an engine no longer listens.
NOTICE_SECONDS = 2.0
NOTICE_POLL_SECONDS = 0.02
#: A proxy in front of us must neither keep events back nor keep them.
STREAM_HEADERS: tuple[Header, ...] = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


@dataclass(frozen=True, slots=True)
class Call:
    """One checked request."""

    path: DataPath
    body: bytes
    query: bytes
    headers: tuple[Header, ...]
    """Those of the client's headers that the engine gets."""
    reshape: Reshape | None = None
    """What is done to a whole answer that clients want in another form."""
    tidy: Reshape | None = None
    """What is done to a stream's events as they go by."""


class Forwarder:
    """Passes calls to engines."""

    def __init__(self, router: Router, settings: Settings, upstream: Upstream) -> None:
        self._router = router
        self._settings = settings
        self._upstream = upstream
        self.balancer = Balancer()

    async def forward(self, call: Call, route: Route, reply: Reply) -> None:
        """Answer `call` from one of the route's replicas.

        A replica that cannot be reached is passed over; if there is no other, the call waits once for the controller
        to bring one. A call that was lost with a replica may have killed it, so it is tried once more, not oftener.

        Raises:
            Refusal: nothing has been sent yet, and nothing will come.
        """
        route = await self._ready(route)
        tried: set[Target] = set()
        lost = waited = False
        while True:
            target = self.balancer.choose(route.targets, tried, call.body, call.path.prompt_field)
            if target is None:
                if lost or waited:
                    raise _died(route.uid) if lost else _unreachable(route.uid)
                route, waited = await self._replacement(route), True
                tried.clear()
                continue
            tried.add(target)
            try:
                return await self._pass(call, route, target, reply)
            except EngineUnreachableError:
                self.balancer.failed(route.targets, target)
                continue
            except EngineDiedError:
                if lost:
                    raise _died(route.uid) from None
                lost = True
                if len(route.targets) == 1:
                    # It may have been only an idle connection that the engine closed just then.
                    tried.discard(target)

    async def _pass(self, call: Call, route: Route, target: Target, reply: Reply) -> None:
        """One attempt at one target."""
        self.balancer.begin(target)
        answer = None
        try:
            answer = await self._upstream.post(target, call.path.upstream, call.query, call.headers, call.body)
            self.balancer.reached(target)
            if answer.status >= 400:
                raise await _engine_refusal(answer, call, route)
            await _relay(answer, call, route, reply)
        finally:
            if answer is not None:
                answer.close()
            self.balancer.end(target)

    async def _ready(self, route: Route) -> Route:
        """`route` with targets, after a wait if it is being restarted, or is loaded because it was asked for."""
        if route.targets:
            return route
        if route.problem is not None:
            raise _failed(route.uid, route.problem)
        if route.on_demand:
            return await self._wait(route, self._settings.on_demand_wait_seconds)
        if not route.recovering:
            cause = f"The model {route.uid!r} is not ready yet (stage: {route.stage})."
            raise Refusal("model_loading", 503, cause, hint="Ask again in a moment.", retry_after=route.retry_after)
        return await self._wait(route, self._settings.recover_seconds)

    async def _wait(self, route: Route, seconds: float) -> Route:
        try:
            return await self._router.ensure_ready(route.uid, seconds)
        except Problem as problem:
            now = self._router.table.routes.get(route.uid, route)
            retry_after = now.retry_after if problem.status in (429, 503) and now.problem is None else None
            # These hints name other models, which are not for every key.
            hint = None if problem.status == 404 or problem.code == "no_room" else problem.hint
            raise Refusal(problem.code, problem.status, problem.cause, hint=hint, retry_after=retry_after) from None

    async def _replacement(self, route: Route) -> Route:
        """The route after the controller has seen that none of its targets can be reached."""
        until = time.monotonic() + min(NOTICE_SECONDS, self._settings.recover_seconds)
        while (now := self._router.table.routes.get(route.uid)) is not None:
            if now.targets != route.targets:
                return await self._ready(now)
            if time.monotonic() >= until:
                raise _unreachable(route.uid)
            await asyncio.sleep(NOTICE_POLL_SECONDS)
        raise Refusal("model_not_found", 404, f"The model {route.uid!r} is gone.", param="model")


async def _relay(answer: Answer, call: Call, route: Route, reply: Reply) -> None:
    if call.reshape is not None:
        await reply.whole(answer.status, call.reshape(answer.first + await _rest(answer)))
        return
    if answer.is_stream:
        headers = [header for header in answer.headers if header[0] != b"content-length"]
        await reply.start(answer.status, (*headers, *STREAM_HEADERS))
        await relay_events(answer.read, answer.first, reply, done=call.path.done, model=route.uid, tidy=call.tidy)
        return
    await reply.start(answer.status, answer.headers)
    if answer.at_end:
        await reply.end(answer.first)
    else:
        await relay_bytes(answer.read, answer.first, reply, model=route.uid)


async def _rest(answer: Answer) -> bytes:
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return b"".join(pieces)


async def _engine_refusal(answer: Answer, call: Call, route: Route) -> Refusal:
    """Read the engine's error, or its first 64 KB, and put it in the clients' words."""
    body = answer.first
    with contextlib.suppress(EngineDiedError):  # then the beginning has to do
        while len(body) < MAX_ERROR_BYTES and (chunk := await answer.read()):
            body += chunk
    return normalise(
        answer.status,
        body[:MAX_ERROR_BYTES],
        prompt_field=call.path.prompt_field,
        context_length=route.context_length,
        retry_after=route.retry_after,
    )


def _failed(uid: str, problem: Problem) -> Refusal:
    return Refusal("model_failed", 503, f"The model {uid!r} has failed: {problem.cause}", hint=problem.hint)


def _died(uid: str) -> Refusal:
    return Refusal("engine_died", 502, f"The engine of model {uid!r} died before it answered.", hint="Ask again.")


def _unreachable(uid: str) -> Refusal:
    return Refusal("engine_died", 502, f"The engine of model {uid!r} cannot be reached.", hint="Ask again in a moment.")
