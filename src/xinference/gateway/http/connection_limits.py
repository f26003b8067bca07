"""Limits of clients' connections: time limits, and the number of connections that may wait for their request.

Nothing here depends on what a client sends, only on when it sends. The times are those of the event loop's clock.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from xinference.config import Settings

#: Minimum mean speed of a client that sends a body or reads an answer, in bytes per second.
MIN_SPEED = 1024
#: A timer that fires later than this was held up with everything else in this process. Clients get a further second:
#: what they have sent or read meanwhile is not known yet.
LATE_SECONDS = 0.5
#: A connection that is younger has its place even if its address has more than its share: many clients behind one
#: address may connect at the same moment.
MIN_WAIT_SECONDS = 1.0
#: The server's soft limit of descriptors is raised to this number, as far as the hard limit permits.
DESCRIPTORS = 65536


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of one server; times in seconds."""

    head_seconds: float = 10.0
    """Maximum time for a request's head, and for the first byte on a new connection."""
    body_seconds: float = 30.0
    """Maximum time between two pieces of a request's body."""
    write_seconds: float = 30.0
    """Maximum time in which a client reads nothing, or too little, of its answer."""
    idle_seconds: float = 75.0
    """Maximum time between two requests on one connection."""
    connections: int = 8192
    """Maximum number of connections."""
    waiting_per_address: int = 1024
    """Maximum number of connections of one address on which no request is complete."""

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        """The limits in the settings; fewer connections if the system permits fewer descriptors."""
        return cls(
            settings.head_seconds,
            settings.body_seconds,
            settings.write_seconds,
            settings.idle_seconds,
            min(settings.max_connections, connections_within(free_descriptors())),
            settings.max_waiting_connections,
        )


class Connection(Protocol):
    """A client's connection as `Connections` sees it."""

    @property
    def is_idle(self) -> bool:
        """Whether every request on it has been answered."""
        ...

    def drop(self) -> None:
        """Close it at once, without an answer."""
        ...


class Connections:
    """All connections of one server; used from one event loop, so it needs no lock.

    A connection waits while no request on it is complete: its client has sent nothing yet, or a part of a request. A
    client that means well waits for milliseconds. When there are too many connections, the one that has waited the
    longest is dropped, so that those who send a whole request are still answered.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open: dict[Connection, str] = {}
        self._waiting: dict[Connection, float] = {}
        """The time at which each began to wait, the longest wait first."""
        self._waiting_at: dict[str, dict[Connection, None]] = {}
        """The waiting connections of each address, in the same order."""

    @property
    def count(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def open(self, connection: Connection, address: str, now: float) -> bool:
        """Add a new connection, which waits for its first request.

        Returns:
            False if there are too many connections and none of them can be dropped: the new one has to be closed.
        """
        if len(self._open) >= self.limits.connections:
            dropped = next(iter(self._waiting), None) or next((each for each in self._open if each.is_idle), None)
            if dropped is None:
                return False
            self.close(dropped)
            dropped.drop()
        self._open[connection] = address
        self.wait(connection, now)
        return True

    def close(self, connection: Connection) -> None:
        """Remove a connection that is closed, or will be closed at once."""
        self.end_wait(connection)
        self._open.pop(connection, None)

    def wait(self, connection: Connection, now: float) -> None:
        """Note that a connection waits for the rest of a request."""
        address = self._open.get(connection)
        if address is None:
            return
        self._waiting[connection] = now
        waiting = self._waiting_at.setdefault(address, {})
        waiting[connection] = None
        if len(waiting) > self.limits.waiting_per_address:
            longest = next(iter(waiting))
            if now - self._waiting[longest] >= MIN_WAIT_SECONDS:
                self.close(longest)
                longest.drop()

    def end_wait(self, connection: Connection) -> None:
        """Note that a request is complete."""
        if self._waiting.pop(connection, None) is None:
            return
        address = self._open[connection]
        waiting = self._waiting_at[address]
        del waiting[connection]
        if not waiting:
            del self._waiting_at[address]


# -- descriptors ------------------------------------------------------------------------------------------------


def connections_within(free: int) -> int:
    """The number of connections for a number of free descriptors.

    A request has a second descriptor, for its engine; some are left for files, engines and their processes.
    """
    return max(1, (free - max(8, free // 16)) // 2)


def free_descriptors() -> int:
    """The number of descriptors that this process may still open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return DESCRIPTORS
    return max(0, soft - sum(1 for _ in Path("/dev/fd").iterdir()))


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors, often 1,024, as far as the system permits; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
