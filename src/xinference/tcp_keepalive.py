"""TCP options with which the kernel detects that the other machine does not answer any more."""

from __future__ import annotations

import socket
from dataclasses import dataclass

#: The options in seconds by field of `KeepAlive`; macOS has another name for the first.
_OPTIONS = {
    "idle": getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None)),
    "interval": getattr(socket, "TCP_KEEPINTVL", None),
    "probes": getattr(socket, "TCP_KEEPCNT", None),
}


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """When a silent connection is asked for a sign of life, and when it is given up."""

    idle: int
    """Seconds without a packet before the first probe."""
    interval: int
    """Seconds between two probes."""
    probes: int
    """Number of probes without an answer after which the connection is broken."""
    unacknowledged: int | None = None
    """Seconds after which sent bytes that were not acknowledged break the connection; None: the kernel's default."""

    def set_on(self, connection: socket.socket) -> None:
        """Set the options. Connections that are accepted on a listening socket have those of that socket."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, option in _OPTIONS.items():
            if option is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, getattr(self, name))
        if self.unacknowledged is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.unacknowledged * 1000)


#: To engines: a minute. An engine that only computes acknowledges, because its kernel does.
ENGINE = KeepAlive(idle=15, interval=15, probes=3, unacknowledged=60)
#: To other machines: a pulled cable is noticed within 8 s, while sending and while waiting. The kernel compares the 7 s
#: with its clock at each probe, so it may need one more.
NODE = KeepAlive(idle=2, interval=1, probes=5, unacknowledged=7)
#: To clients: two minutes, for answers that are due or that say nothing for long. What they do not read has its own
#: time limit.
CLIENT = KeepAlive(idle=60, interval=20, probes=3)
