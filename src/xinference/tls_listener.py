"""A port for TLS connections, with limits of those whose TLS is not set up yet.

Any machine that reaches the port can open connections; only TLS shows which of them are of the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
#: Number of connections that are accepted before those that wait get their turn.
ACCEPTED_AT_ONCE = 16
#: Share of the process's descriptors that handshakes may have.
DESCRIPTOR_SHARE = 8
#: Pause after the system had no descriptor or no memory for a connection, in seconds.
SHORTAGE_SECONDS = 0.2
T = TypeVar("T")
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class HandshakeLimits:
    """The limits of one port; times in seconds. A handshake of a machine of the cluster takes milliseconds."""

    total: int = 512
    """Maximum number of handshakes."""
    per_address: int = 64
    """Number of handshakes of one address that have `seconds`; further ones have `busy_seconds`."""
    seconds: float = 10.0
    busy_seconds: float = 1.0
    end_seconds: float = 5.0
    """Maximum time in which the other end confirms the end of its TLS."""

    def seconds_for(self, others: int) -> float:
        """Maximum time of a handshake if `others` of the same address are not complete."""
        return self.seconds if others < self.per_address else self.busy_seconds


def within_descriptors(limits: HandshakeLimits) -> int:
    """The total of `limits`, or less if the system gives the process few descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limits.total if soft == resource.RLIM_INFINITY else max(1, min(limits.total, soft // DESCRIPTOR_SHARE))


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket.

    Raises:
        OSError: the port is in use, or the host is none of this machine.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


class Handshakes(Generic[T]):
    """The handshakes of a port, by address, the longest one first."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = 0
        self._by_address: dict[str, dict[T, None]] = {}

    def __len__(self) -> int:
        return self._count

    def at(self, address: str) -> int:
        """The number of those of one address."""
        return len(self._by_address.get(address, ()))

    def add(self, handshake: T, address: str) -> None:
        """Add a new one, after `take_excess`."""
        self._by_address.setdefault(address, {})[handshake] = None
        self._count += 1

    def remove(self, handshake: T, address: str) -> None:
        """Remove one that has ended; nothing if it was taken."""
        handshakes = self._by_address.get(address, {})
        if handshake not in handshakes:
            return
        del handshakes[handshake]
        self._count -= 1
        if not handshakes:
            del self._by_address[address]

    def take_excess(self) -> T | None:
        """Take the one to end before a new one is added: the longest of the address that has the most; None: none."""
        return self.take_longest() if self._count >= self._total else None

    def take_longest(self) -> T | None:
        """Take the longest of the address that has the most; None: there is none."""
        if not self._count:
            return None
        address = max(self._by_address, key=self.at)
        longest = next(iter(self._by_address[address]))
        self.remove(longest, address)
        return longest


@dataclass(eq=False)
class _Handshake:
    """A connection whose TLS is being set up."""

    connection: socket.socket
    seconds: float
    """Its maximum time."""
    has_transport: bool = False
    """Whether a transport owns the socket."""
    task: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Close the connection."""
        assert self.task is not None
        self.task.cancel()
        if not self.has_transport:
            self.connection.close()


class TlsListener:
    """Accepts connections at one socket, and sets up their TLS.

    A new connection always gets a place: if there are too many, the longest handshake of the address that has the most
    is ended for it.

    Args:
        listener: a bound socket, which the listener closes.
        make: makes the protocol of a connection, as in `asyncio.loop.create_server`.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: Callable[[], asyncio.BaseProtocol],
        context: ssl.SSLContext,
        limits: HandshakeLimits | None = None,
        backlog: int = 2048,
    ) -> None:
        self._listener = listener
        self._make = make
        self._context = context
        self._limits = limits or HandshakeLimits()
        self._backlog = backlog
        self._handshakes: Handshakes[_Handshake] = Handshakes(within_descriptors(self._limits))
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def handshakes(self) -> int:
        """The number of connections whose TLS is not set up."""
        return len(self._handshakes)

    def open(self) -> None:
        """Listen, in the running event loop.

        Raises:
            OSError: the port is in use.
        """
        self._listener.setblocking(False)
        self._listener.listen(self._backlog)
        self._loop = asyncio.get_running_loop()
        self._read()

    def close(self) -> None:
        """Listen no more, and end the handshakes."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
        while (handshake := self._handshakes.take_longest()) is not None:
            handshake.end()

    def _read(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._begin(connection, str(address[0]))

    def _pause(self, error: OSError) -> None:
        """Accept nothing for a moment; a handshake gives up its descriptor."""
        log.warning("a connection cannot be accepted: %s", error.strerror)
        if error.errno in _SHORTAGES and (longest := self._handshakes.take_longest()) is not None:
            longest.end()
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(SHORTAGE_SECONDS, self._read)

    def _begin(self, connection: socket.socket, address: str) -> None:
        if (longest := self._handshakes.take_excess()) is not None:
            longest.end()
        handshake = _Handshake(connection, self._limits.seconds_for(self._handshakes.at(address)))
        self._handshakes.add(handshake, address)
        handshake.task = task = self._loop.create_task(self._set_up(handshake))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._handshakes.remove(handshake, address))
        task.add_done_callback(self._tasks.discard)

    async def _set_up(self, handshake: _Handshake) -> None:
        """Set up the TLS of a connection; its protocol is called after that."""
        handshake.has_transport = True
        connection = handshake.connection
        with contextlib.suppress(OSError):  # ssl.SSLError is an OSError
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                self._make,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=handshake.seconds,
                ssl_shutdown_timeout=self._limits.end_seconds,
            )
