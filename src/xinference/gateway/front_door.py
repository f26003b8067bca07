"""The one data port of a worker: takes requests of the cluster's gateways over TLS and passes them to its engines.

``POST /r/<replica id>/v1/…``: the front door knows the port and the key of each replica on its node, so an engine
listens on loopback only, and its key never leaves the node. ``GET /w/<digest>/<file>`` gives weights to other nodes.
Both ends of a connection show certificates of the cluster.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Container, Mapping
from functools import partial
from typing import Any

from xinference.gateway.crash_memory import is_listening
from xinference.gateway.door_load import DoorLoad
from xinference.gateway.http.asgi import Receive, Reply, Scope, Send
from xinference.gateway.http.engine_pool import (
    LISTENING,
    NO_ANSWER,
    NOT_REACHED,
    EngineDiedError,
    EnginePool,
    EngineUnreachableError,
)
from xinference.gateway.http.request_body import ClientLeftError, ClientWatch, read_body
from xinference.gateway.http.scope_entries import WRITE
from xinference.gateway.http.server import DRAIN_SECONDS, Server, http_server
from xinference.gateway.http.uvicorn_protocol import Protocol
from xinference.gateway.stream import relay_bytes
from xinference.gateway.weight_files import PREFIX, WeightFiles
from xinference.nodes.certificates import peer_node
from xinference.protocol.errors import Header, Refusal
from xinference.routing.table import Target
from xinference.tcp_keepalive import NODE

log = logging.getLogger(__name__)
#: Headers of a request that an engine gets.
FORWARDED = frozenset(
    {b"content-type", b"accept", b"anthropic-version", b"traceparent", b"tracestate", b"x-request-id"}
)


class FrontDoor:
    """The ASGI app behind the data port.

    Args:
        targets: the replicas on this node, by replica id; read for each request.
        max_bytes: of a request's body.
        weights: the files that this node offers to others; None: none.
        load: counts the requests at each replica; None: nobody reads the counts.
    """

    def __init__(
        self,
        targets: Callable[[], Mapping[str, Target]],
        pool: EnginePool,
        max_bytes: int,
        weights: WeightFiles | None = None,
        load: DoorLoad | None = None,
    ) -> None:
        self._targets = targets
        self._weights = weights
        self._pool = pool
        self._max_bytes = max_bytes
        self._load = load or DoorLoad(pool)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        reply = Reply(send, write=scope.get(WRITE))
        if self._weights is not None and scope["method"] == "GET" and scope["path"].startswith(PREFIX):
            await self._weights.answer(scope, reply)
            return
        _, _, rest = scope["path"].partition("/r/")
        replica_id, _, path = rest.partition("/")
        target = self._targets().get(replica_id)
        if target is None or scope["method"] != "POST":
            await reply.whole(NOT_REACHED, b"")
            return
        if f"/{path}" == LISTENING:
            await reply.whole(200 if await is_listening(target) else NOT_REACHED, b"{}")
            return
        headers = tuple((name, value) for name, value in scope["headers"] if name in FORWARDED)
        try:
            body = await read_body(receive, dict(scope["headers"]), self._max_bytes)
            self._load.begin(replica_id)
            try:
                with ClientWatch(scope, receive):
                    await self._pass_on(target, f"/{path}", scope["query_string"], headers, body, reply)
            finally:
                self._load.end(replica_id)
        except Refusal as refusal:
            await reply.whole(refusal.status, b"{}")
        except ClientLeftError:
            return
        except asyncio.CancelledError:  # by the server, whose time for the last answers is over
            log.warning("an answer of replica %s is ended: this worker ends", replica_id)
            if not reply.started:
                await reply.whole(NO_ANSWER, b"")

    async def _pass_on(
        self, target: Target, path: str, query: bytes, headers: tuple[Header, ...], body: bytes, reply: Reply
    ) -> None:
        try:
            answer = await self._pool.post(target, path, query, headers, body)
        except EngineUnreachableError:
            await reply.whole(NOT_REACHED, b"")
            return
        except EngineDiedError as error:
            log.warning("the engine of replica %s did not answer: %s", target.replica_id, error)
            await reply.whole(NO_ANSWER, b"")
            return
        try:
            await reply.start(answer.status, answer.headers)
            # If the engine dies, the answer stays incomplete and the connection is closed: the gateway sees that as the
            # death of an engine on its own node.
            read = answer.read if reply.write is None else partial(answer.read, reply.write)
            await relay_bytes(read, answer.first, reply, model=f"replica {target.replica_id}")
        finally:
            answer.close()


class _NodeProtocol(Protocol):
    """A connection of another node; it is closed at once if the node's certificate is not accepted."""

    __slots__ = ("_is_revoked",)

    def __init__(self, *args: Any, is_revoked: Callable[[str, int], bool], **more: Any) -> None:
        super().__init__(*args, **more)
        self._is_revoked = is_revoked

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows asyncio's type, too
        secured = transport.get_extra_info("ssl_object")
        peer = peer_node(secured.getpeercert(binary_form=True)) if secured is not None else None
        super().connection_made(transport)
        if peer is None or self._is_revoked(*peer):
            log.warning(
                "a connection to the front door is refused: %s", peer[0] if peer else "no certificate of a node"
            )
            transport.abort()
            return
        NODE.set_on(transport.get_extra_info("socket"))


def front_door_server(
    door: FrontDoor,
    context: ssl.SSLContext,
    host: str,
    port: int,
    revoked: Container[tuple[str, int]],
    before_end: Callable[[], Awaitable[None]] | None = None,
    on_hurry: Callable[[], None] | None = None,
    drain_seconds: float = DRAIN_SECONDS,
) -> Server:
    """The server of the data port.

    Args:
        context: of `NodeIdentity.server_context`.
        revoked: node ids with the serial numbers of certificates that are refused; read for each connection.
        before_end: awaited before the server stops accepting requests.
        on_hurry: called when the open answers are to end at once.
        drain_seconds: time that open answers get when the server stops.
    """
    protocol = partial(_NodeProtocol, is_revoked=lambda node, serial: (node, serial) in revoked)
    return http_server(
        door,
        before_end=before_end,
        on_hurry=on_hurry,
        drain_seconds=drain_seconds,
        protocol=protocol,
        host=host,
        port=port,
        ssl_context_factory=lambda _config, _default: context,
    )
