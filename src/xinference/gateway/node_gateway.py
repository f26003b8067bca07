"""The gateway of a worker: serves clients with the last table of the supervisor, also while that is down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import msgspec

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.gateway.app import Gateway
from xinference.gateway.http.asgi import Receive, Reply, Scope, Send
from xinference.gateway.http.connection_limits import ConnectionLimits
from xinference.gateway.http.error_replies import refuse
from xinference.gateway.http.last_answers import Shutdown
from xinference.gateway.http.node_tls import ClusterTls
from xinference.gateway.http.server import Server, http_server
from xinference.gateway.request_records import Recorder
from xinference.gateway.workers.ipc import from_plain, to_plain
from xinference.keys.key import Key
from xinference.keys.table import KeyTable, table_of
from xinference.protocol.errors import Refusal
from xinference.records.record import Record
from xinference.routing.table import Route, RoutingTable

log = logging.getLogger(__name__)
#: `Retry-After` of a worker without a table, in seconds.
RETRY_SECONDS = 2
#: Interval at which the supervisor is asked again for a model on demand, in seconds.
ASK_SECONDS = 1.0


class GatewayTable(msgspec.Struct, frozen=True):
    """What the gateway of a worker needs of the supervisor."""

    routes: dict[str, Route]
    listing: bytes
    keys: list[Key]
    keys_required: bool


_ENCODER = msgspec.msgpack.Encoder(enc_hook=to_plain)
_DECODER = msgspec.msgpack.Decoder(GatewayTable, dec_hook=from_plain)


def encode_gateway_table(table: RoutingTable, keys: KeyTable) -> bytes:
    """The table for workers: without the replicas on the supervisor's own machine, which only that reaches."""
    routes = {name: _reachable(route) for name, route in table.routes.items()}
    return _ENCODER.encode(GatewayTable(routes, table.listing, list(keys.by_digest.values()), keys.required))


def _reachable(route: Route) -> Route:
    targets = tuple(target for target in route.targets if target.server_name)
    return route if len(targets) == len(route.targets) else replace(route, targets=targets)


class NodeRouter:
    """A `Router` and the `Keys` of a worker, with the newest table that has come."""

    def __init__(self, ask_for: Callable[[str], None]) -> None:
        """`ask_for` asks the supervisor to load a model on demand; nothing happens while it is down."""
        self._ask_for = ask_for
        self._changes = asyncio.Event()
        self._asked: dict[str, float] = {}
        self.has_table = False
        self.table = RoutingTable()
        self.keys = NodeKeys()

    def use(self, data: bytes) -> None:
        """Use a table of the supervisor.

        Raises:
            msgspec.DecodeError: it is of another release.
        """
        found = _DECODER.decode(data)
        self.table = RoutingTable(MappingProxyType(found.routes), found.listing)
        self.keys.table = table_of(found.keys, required=found.keys_required)
        self.has_table = True
        self._changes.set()
        self._changes = asyncio.Event()

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        """See `Router.ensure_ready`: waits for a table in which the model has a replica."""
        end = time.monotonic() + deadline
        while True:
            route = self.table.routes.get(uid)
            if route is None:
                raise Refusal(Code.MODEL_NOT_FOUND, f"There is no model {uid!r}.", hint="`GET /v1/models` lists them.")
            if route.targets:
                return route
            remaining = end - time.monotonic()
            if route.problem is not None or remaining <= 0:
                raise route.problem or _not_ready(route)
            if route.on_demand:
                self._ask(route.parent or route.uid)
            try:
                await asyncio.wait_for(self._changes.wait(), remaining)
            except TimeoutError:
                continue

    def _ask(self, uid: str) -> None:
        """Ask for a model, at most once a second for all who wait."""
        now = time.monotonic()
        if now - self._asked.get(uid, 0.0) >= ASK_SECONDS:
            self._asked[uid] = now
            self._ask_for(uid)


def _not_ready(route: Route) -> Problem:
    return Problem(
        Code.MODEL_LOADING,
        f"The model {route.uid} has no replica on a worker yet (stage {route.stage}).",
        hint="Replicas on the supervisor's own machine answer there only.",
        stage=route.stage,
    )


class NodeKeys:
    """A `Keys` whose table is the supervisor's."""

    def __init__(self) -> None:
        self.table = KeyTable(required=True)

    def used(self, key: Key, now: float) -> None:
        """The supervisor does not get the times at which keys were used on workers."""


class _NotHere:
    """Answers what is no request to a model: that is the supervisor's."""

    def __init__(self, supervisor: str) -> None:
        self._supervisor = supervisor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        refusal = Refusal(
            Code.NOT_HERE,
            f"This is a worker: it answers requests to models, and not {path}.",
            hint=f"Ask the supervisor at {self._supervisor}.",
        )
        await refuse(Reply(send), refusal)


class NodeGateway:
    """The gateway of a worker with its HTTP server."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        supervisor: str,
        ask_for: Callable[[str], None],
        keep: Callable[[Record], None],
    ) -> None:
        """
        Args:
            listener: bound to the address for clients.
            supervisor: its host, for messages.
            ask_for: see `NodeRouter`.
            keep: called with the record of each request, soon after its end.
        """
        host, port = listener.getsockname()[:2]
        # Those of the settings are a server's own: of one on loopback, the gateway refuses the names of other machines.
        settings = replace(settings, host=host, port=port)
        shutdown = Shutdown()
        self.listener = listener
        self._router = router = NodeRouter(ask_for)
        self._serving: asyncio.Task[None] | None = None
        self.gateway = Gateway(
            router,
            settings,
            _NotHere(supervisor),
            router.keys,
            is_owner=lambda scope: False,
            recorder=Recorder(keep),
            shutdown=shutdown,
            node_tls=ClusterTls(settings.identity_dir),
        )
        self.server: Server = http_server(
            self,
            limits=ConnectionLimits.of(settings),
            shutdown=shutdown,
            drain_seconds=settings.drain_seconds,
        )
        # The front door's server handles the signals of the process, and ends this one first.
        self.server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]  # only this server ignores signals

    def use(self, table: bytes) -> None:
        """Use a table of the supervisor; one of another release is logged, and the earlier one stays."""
        try:
            self._router.use(table)
            self.gateway.use_table()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("the routes of the supervisor cannot be read, the earlier ones are used: %s", error)

    def begin(self) -> None:
        """Take requests from now on."""
        self._serving = asyncio.create_task(self.server.serve(sockets=[self.listener]), name="requests of clients")

    async def stop(self) -> None:
        """Take no more requests, and wait for the last answers."""
        self.server.stop()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
        await self.gateway.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._router.has_table and scope["type"] == "http":
            cause = "This worker has no table of the supervisor yet."
            await refuse(Reply(send), Refusal(Code.MODEL_LOADING, cause, retry_after=RETRY_SECONDS))
            return
        await self.gateway(scope, receive, send)
