"""The HTTP server in front of a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from xinference.gateway.http.asgi import ASGIApp
from xinference.gateway.http.connection_limits import ConnectionLimits, Connections
from xinference.gateway.http.uvicorn_protocol import Protocol

#: Maximum time for answers in flight when the server stops.
LAST_ANSWERS_SECONDS = 5
#: Interval at which the date in the answers' headers is updated.
DATE_SECONDS = 1.0


class Server(uvicorn.Server):
    """uvicorn's server; sleeps until it is stopped, and records the signal that stopped it."""

    ended_by: int = signal.SIGTERM

    def __init__(self, config: uvicorn.Config, before_end: Callable[[], Awaitable[None]] | None = None) -> None:
        """`before_end` is awaited before the server stops accepting requests."""
        super().__init__(config)
        self._before_end = before_end
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        # uvicorn's loop checks ten times a second whether to stop, and takes that time from an engine on its core.
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), DATE_SECONDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's handler raises the signal again at the end: the process would die before its engines are stopped.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.stop(sig)

    def stop(self, by: int = signal.SIGINT) -> None:
        """Stop once the answers in flight are sent, as the signal `by` would; SIGINT stops the engines too."""
        self.ended_by = by
        self.should_exit = True
        if self._loop is not None:  # a signal handler does not wake the event loop
            self._loop.call_soon_threadsafe(self._stopped.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._before_end is not None:
            await self._before_end()
        await super().shutdown(sockets)


def http_server(
    app: ASGIApp,
    *,
    limits: ConnectionLimits | None = None,
    before_end: Callable[[], Awaitable[None]] | None = None,
    **more: Any,
) -> Server:
    """The HTTP server for `app`, with the same settings in the product, in tests and in benchmarks.

    `before_end` is awaited before the server stops accepting requests; `more` are settings of uvicorn.
    """
    protocol = partial(Protocol, connections=Connections(limits or ConnectionLimits()))
    return Server(
        uvicorn.Config(
            app,
            http=cast(type[Protocol], protocol),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # see `trust_proxy`
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
            **more,
        ),
        before_end,
    )


def trust_proxy(app: ASGIApp) -> ASGIApp:
    """`app` with the client's address and scheme from the ``X-Forwarded`` headers of a trusted proxy.

    uvicorn would do so for every request, but only the management API builds addresses (for redirects), so the data
    path saves the search of the headers.
    """
    trusted = uvicorn.Config(app, log_config=None).forwarded_allow_ips  # the environment's FORWARDED_ALLOW_IPS
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted))
