"""The server's side of a client's connection, with a clock that a test sets and without a socket."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.server import ServerState

from xinference.gateway.http.asgi import ASGIApp
from xinference.gateway.http.connection_limits import ConnectionLimits, Connections
from xinference.gateway.http.server import http_server
from xinference.gateway.http.uvicorn_protocol import Protocol


class Timer:
    """What `call_later` returns."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ClockedLoop:
    """An event loop for a protocol: its tasks are those of the running loop, its time is the test's."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, call: Callable[..., object], *arguments: Any) -> Timer:
        timer = Timer(lambda: call(*arguments))
        heapq.heappush(self._timers, (self._now + delay, next(self._numbers), timer))
        return timer

    def create_task(self, work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work, **options)

    @property
    def timers(self) -> int:
        """The number of timers that will call something."""
        return sum(not timer.cancelled for _, _, timer in self._timers)

    def stand_still(self, seconds: float) -> None:
        """Let time pass in which nothing in this process runs; what is due is called next."""
        self._now += seconds
        self.advance(0)

    def advance(self, seconds: float) -> None:
        """Let time pass, and make the calls that are due."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, at)
            if not timer.cancelled:
                timer.call()
        self._now = end


class Socket(asyncio.Transport):
    """A transport whose client reads as much as the test says."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1), "sockname": ("127.0.0.1", 2)})
        self.protocol: Protocol
        self.sent = b""
        self.unread = 0
        """Bytes that were written and that the client has not read, while `reads` is off."""
        self.reads = True
        self.paused_reading = False
        self.closing = self.aborted = False

    def write(self, data: Any) -> None:
        if self.closing:
            return
        self.sent += data
        if not self.reads:
            self.unread += len(data)
            if self.unread > 64 * 1024:
                self.protocol.pause_writing()

    def read(self, size: int) -> None:
        """The client reads `size` of the bytes that it has not read."""
        self.unread -= size
        if self.unread <= 16 * 1024:
            self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return self.unread

    def write_eof(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        if not self.aborted:
            self.closing = self.aborted = True
            self.protocol.connection_lost(None)

    def pause_reading(self) -> None:
        self.paused_reading = True

    def resume_reading(self) -> None:
        self.paused_reading = False


class ClockedServer:
    """The production protocol in front of `app`."""

    def __init__(self, app: ASGIApp, limits: ConnectionLimits | None = None) -> None:
        self.loop = ClockedLoop()
        self.connections = Connections(limits or ConnectionLimits())
        self._config = http_server(app).config
        self._config.load()
        self._state = ServerState()

    def connect(self, address: str = "10.0.0.1") -> Socket:
        """A new connection of a client."""
        loop: Any = self.loop
        protocol = Protocol(self._config, self._state, {}, loop, connections=self.connections)
        socket = Socket(address)
        socket.protocol = protocol
        protocol.connection_made(socket)
        return socket

    @property
    def open(self) -> int:
        """The number of open connections."""
        return self.connections.count
