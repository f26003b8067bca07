"""A worker's end of its link: a Unix socket, to which the relay of its machine connects."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from xinference.fabric.fabric import NodeProgram
from xinference.fabric.node_connection import NodeConnection
from xinference.task_set import TaskSet


class NodeSocket:
    """Serves one relay at a time: the newest connection replaces the one before.

    A relay can end at any time, and its machine's raylet with it: nothing here depends on it.
    """

    def __init__(self, path: Path, program: NodeProgram) -> None:
        self._path = path
        self._program = program
        self._server: asyncio.Server | None = None
        self._connection: NodeConnection | None = None
        self._serving = TaskSet()

    async def open(self) -> None:
        """Listen; the socket has mode 0600."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._path)
        self._path.chmod(0o600)

    async def close(self) -> None:
        """Listen no more, and close the connection."""
        if self._server is not None:
            self._server.close()
        if self._connection is not None:
            self._connection.close()
        await self._serving.end()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def send(self, body: bytes) -> None:
        """Send an event; it is lost without a connection: see `fabric.Uplink`."""
        if self._connection is not None:
            self._connection.send_event(body)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = connection = NodeConnection(self._program, reader, writer)
        self._serving.start(self._serve(connection))

    async def _serve(self, connection: NodeConnection) -> None:
        try:
            await connection.serve()
        finally:
            connection.close()
            if self._connection is connection:
                self._connection = None
