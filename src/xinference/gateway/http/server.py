"""The HTTP server in front of a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from xinference.gateway.http.asgi import ASGIApp
from xinference.gateway.http.connection_limits import ConnectionLimits, Connections
from xinference.gateway.http.last_answers import Shutdown
from xinference.gateway.http.uvicorn_protocol import Protocol
from xinference.tls_listener import HandshakeLimits, TlsListener

log = logging.getLogger(__name__)

#: Default of the time that open answers get when the server stops.
DRAIN_SECONDS = 5.0
#: Maximum time in which clients read the reason of the end; a client that does not read is not waited for any longer.
LAST_WRITES_SECONDS = 2.0
POLL_SECONDS = 0.02
#: Interval at which the date in the answers' headers is updated.
DATE_SECONDS = 1.0


class Server(uvicorn.Server):
    """uvicorn's server; sleeps until it is stopped, and records the signal that stopped it."""

    ended_by: int = signal.SIGTERM
    #: Called once the server listens.
    on_start: Callable[[], None] | None = None
    #: Of a port with TLS.
    handshake_limits = HandshakeLimits()

    def __init__(
        self,
        config: uvicorn.Config,
        before_end: Callable[[], Awaitable[None]] | None = None,
        on_hurry: Callable[[], None] | None = None,
        shutdown: Shutdown | None = None,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        super().__init__(config)
        self._before_end = before_end
        self._on_hurry = on_hurry
        self._shutdown = shutdown or Shutdown()
        self._drain_seconds = drain_seconds
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tls_ports: list[TlsListener] = []

    async def main_loop(self) -> None:
        # uvicorn's loop checks ten times a second whether to stop, and takes that time from an engine on its core.
        self._loop = asyncio.get_running_loop()
        if self.on_start is not None:
            self.on_start()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), DATE_SECONDS)
            if self.config.uds is not None and not self.should_exit:
                await self._restore_socket(self._loop, Path(self.config.uds))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.ssl is None or sockets is None:
            await super().startup(sockets)
            return
        await super().startup(sockets=[])
        for listener in sockets:
            port = TlsListener(
                listener, self._create_protocol, self.config.ssl, self.handshake_limits, self.config.backlog
            )
            port.open()
            self._tls_ports.append(port)

    def _create_protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        return cast(asyncio.Protocol, protocol(config=self.config, server_state=self.server_state, app_state={}))

    async def _restore_socket(self, loop: asyncio.AbstractEventLoop, path: Path) -> None:
        """Listen again if the socket was deleted: its folder may be one that the system cleans up."""
        if path.exists():
            return
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.servers.append(await loop.create_unix_server(self._create_protocol, path=path))
        except OSError as error:
            log.error("%s was deleted and cannot be created again: %s", path, error.strerror)
        else:
            log.warning("%s was deleted, and is created again", path)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGHUP, too, which a terminal sends when it closes; a server under `nohup` goes on."""
        handled = threading.current_thread() is threading.main_thread()
        handled = handled and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        if handled:
            signal.signal(signal.SIGHUP, self.handle_exit)
        try:
            with super().capture_signals():
                yield
        finally:
            if handled:
                signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's handler raises the signal again at the end: the process would die before its engines are stopped.
        if self.should_exit and sig == signal.SIGINT:
            self.hurry()
        self.stop(sig)

    def stop(self, by: int = signal.SIGINT) -> None:
        """Stop once the answers in flight are sent, as the signal `by` would; SIGINT stops the engines too."""
        self.ended_by = by
        self.should_exit = True
        if self._loop is not None:  # a signal handler does not wake the event loop
            self._loop.call_soon_threadsafe(self._stopped.set)

    def hurry(self) -> None:
        """End the open answers at once; the server is stopping already."""
        self.force_exit = True
        if self._loop is not None and self._on_hurry is not None:
            self._loop.call_soon_threadsafe(self._on_hurry)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more requests, give open answers their time, and end the others with the reason.

        uvicorn would cancel what is left, and a cancelled request is a 500 or a stream that breaks off.
        """
        self._shutdown.begun = True
        if self._before_end is not None:
            await self._before_end()
        for listener in (*self._tls_ports, *self.servers, *(sockets or ())):
            listener.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            log.info(
                "running requests: %d; they get up to %g s to finish; Ctrl+C ends them at once",
                len(state.tasks),
                self._drain_seconds,
            )
        await self._wait_for_answers(self._drain_seconds)
        self._shutdown.answers_end = True
        for task in list(state.tasks):
            task.cancel()
        self.force_exit = False
        await self._wait_for_answers(LAST_WRITES_SECONDS)
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=LAST_WRITES_SECONDS)

    async def _wait_for_answers(self, seconds: float) -> None:
        """Wait until no request runs and no connection is open, at most `seconds`, or until `hurry` is called."""
        state = self.server_state
        end = time.monotonic() + seconds
        while (state.connections or state.tasks) and not self.force_exit and time.monotonic() < end:  # noqa: ASYNC110 -- uvicorn has no event for it
            await asyncio.sleep(POLL_SECONDS)


def http_server(
    app: ASGIApp,
    *,
    limits: ConnectionLimits | None = None,
    before_end: Callable[[], Awaitable[None]] | None = None,
    on_hurry: Callable[[], None] | None = None,
    shutdown: Shutdown | None = None,
    drain_seconds: float = DRAIN_SECONDS,
    protocol: Callable[..., Protocol] = Protocol,
    **more: Any,
) -> Server:
    """The HTTP server for `app`, with the same settings in the product, in tests and in benchmarks.

    Args:
        limits: of connections; None: the default ones.
        before_end: awaited before the server stops accepting requests.
        on_hurry: called when the open answers are to end at once.
        shutdown: told when the stop begins, and when the time for open answers is over; the gateway reads it.
        drain_seconds: time that open answers get when the server stops.
        protocol: makes the object for a connection.
        more: settings of uvicorn.
    """
    limited = partial(protocol, connections=Connections(limits or ConnectionLimits()))
    return Server(
        uvicorn.Config(
            app,
            http=cast(type[Protocol], limited),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # see `trust_proxy`
            **more,
        ),
        before_end,
        on_hurry,
        shutdown,
        drain_seconds,
    )


def trust_proxy(app: ASGIApp) -> ASGIApp:
    """`app` with the client's address and scheme from the ``X-Forwarded`` headers of a trusted proxy.

    uvicorn would do so for every request, but only the management API builds addresses (for redirects), so the data
    path saves the search of the headers.
    """
    trusted = uvicorn.Config(app, log_config=None).forwarded_allow_ips  # the environment's FORWARDED_ALLOW_IPS
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted))
