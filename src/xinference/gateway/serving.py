"""The HTTP server in front of a gateway."""

from __future__ import annotations

import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import uvicorn

from xinference.gateway.asgi import ASGIApp
from xinference.gateway.protocol import Protocol

#: How long a stopping server waits for answers in flight, in seconds.
LAST_ANSWERS_SECONDS = 5


class Server(uvicorn.Server):
    """uvicorn's server, which remembers what ended it."""

    ended_by: int = signal.SIGTERM
    before_end: Callable[[], Awaitable[None]] | None = None
    """What has to end before this server takes no more requests."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own: that raises the signal again at the end, before engines are ended or left.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        self.ended_by = sig

    def stop(self) -> None:
        """End the server and its engines once the answers in flight are sent."""
        self.ended_by = signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.before_end is not None:
            await self.before_end()
        await super().shutdown(sockets)


def http_server(app: ASGIApp, **more: Any) -> Server:
    """The HTTP server in front of `app`: the same one wherever the gateway is served, benchmarks included.

    `more` are settings of uvicorn.
    """
    return Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
            **more,
        )
    )
