"""The keeper's side of the connection to its owner. Standard library only, because the keeper imports it."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections.abc import Mapping
from typing import Any

_LINE_LIMIT = 64 * 1024


class Owner:
    """The current connection to the server."""

    def __init__(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        connection.setblocking(False)
        self.connection = connection
        self._selector = selector
        self._out = b""
        self._in = b""
        selector.register(connection, selectors.EVENT_READ, self)

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a message. It never blocks, even if the owner does not read."""
        self._out += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Write as much as the socket accepts."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._out = self._out[self.connection.send(self._out) :]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        self._selector.modify(self.connection, events, self)

    def receive(self) -> list[Mapping[str, Any]] | None:
        """The requests, each with its operation as ``op``, or None if the owner has disconnected."""
        try:
            data = self.connection.recv(4096)
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        *lines, self._in = (self._in + data).split(b"\n")
        if not data or len(self._in) > _LINE_LIMIT:
            return None
        return [request for request in map(_request, lines) if "op" in request]

    def close(self) -> None:
        """Close the connection and unregister it."""
        self._selector.unregister(self.connection)
        self.connection.close()


def _request(line: bytes) -> Mapping[str, Any]:
    try:
        request = json.loads(line)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}
