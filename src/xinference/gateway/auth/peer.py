"""Checks whether a request comes from the unix user that runs the server.

On a server without keys this is what `manage` is open to. The kernel is asked for the owner of the connection's other
end: a client cannot change that, and every process of the user has it.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from xinference.gateway.auth.socket_tables import ESTABLISHED, Ends, find_owner
from xinference.protocol.errors import Header

#: The scope's entry for `Protocol.peer_uid`.
PEER_UID = "xinference.peer_uid"
#: The header in which a gateway process tells the server that, over the server's private socket.
OWNER_HEADER: Header = (b"x-xinference-owner", b"1")
#: Headers that proxies add, besides those that begin with `_FORWARDED`.
_PROXY_HEADERS = frozenset({b"forwarded", b"via", b"x-real-ip"})
_FORWARDED = b"x-forwarded"
_OVERFLOW_UID = Path("/proc/sys/kernel/overflowuid")
_PEER_CREDENTIALS = struct.Struct("=iII")


def find_peer_uid(connection: socket.socket) -> int | None:
    """The unix user at the other end of a connection on this machine; None: the system does not tell.

    On Linux: the maker of the peer's TCP socket, or the process that connected to a Unix socket.
    """
    if sys.platform != "linux":
        return None
    try:
        if connection.family == socket.AF_UNIX:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
            uid: int | None = _PEER_CREDENTIALS.unpack(credentials)[1]
        else:
            uid = find_owner(Ends.of_peer(connection))
            # After the look-up: while our end is established the peer has not closed its own, and so the look-up has
            # found that very socket, and no later one with the same port.
            if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED:
                return None
    except (OSError, ValueError, struct.error):
        return None
    return None if uid == _overflow_uid() else uid


def is_from_own_user(scope: Mapping[str, Any]) -> bool:
    """Whether the connection of a request was made by a process of the server's own user."""
    ask = scope.get(PEER_UID)
    return ask is not None and ask() == os.geteuid()


def is_marked_by_worker(scope: Mapping[str, Any]) -> bool:
    """`is_from_own_user` for the server behind gateway processes, which know the client's connection."""
    return OWNER_HEADER in scope.get("headers", ()) and is_from_own_user(scope)


def is_forwarded(headers: Iterable[Header]) -> bool:
    """Whether a proxy has sent these headers for somebody else."""
    return any(name in _PROXY_HEADERS or name.startswith(_FORWARDED) for name, _ in headers)


@cache
def _overflow_uid() -> int:
    """The user id that stands for every user whom this user namespace does not know."""
    try:
        return int(_OVERFLOW_UID.read_text())
    except (OSError, ValueError):
        return 65534
