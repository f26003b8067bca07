"""A worker's end of its link: a Unix socket, to which the relay of its machine connects."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import msgspec

from xinference.fabric.fabric import NodeProgram
from xinference.fabric.frames import Answer, Call, Failure, FrameError, NodeEvent, Table, Tell, read_frame, to_frame

log = logging.getLogger(__name__)
#: Bytes that may wait for a relay that does not read; then the connection is closed, and a new one gets the state.
MAX_WAITING = 16 * 1024 * 1024
_DECODER = msgspec.msgpack.Decoder(Call | Tell | Table)


class NodeSocket:
    """Serves one relay at a time: the newest connection replaces the one before.

    A relay can end at any time, and its machine's raylet with it: nothing here depends on it.
    """

    def __init__(self, path: Path, program: NodeProgram) -> None:
        self._path = path
        self._program = program
        self._server: asyncio.Server | None = None
        self._connection: _RelayConnection | None = None
        self._serving: set[asyncio.Task[None]] = set()

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
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def send(self, body: bytes) -> None:
        """Send an event; it is lost without a connection: see `fabric.Uplink`."""
        if self._connection is not None:
            self._connection.send_event(body)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = connection = _RelayConnection(self._program, reader, writer)
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: _RelayConnection) -> None:
        try:
            await connection.serve()
        finally:
            connection.close()
            if self._connection is connection:
                self._connection = None


class _RelayConnection:
    def __init__(self, program: NodeProgram, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._program = program
        self._reader = reader
        self._writer = writer
        self._sent = 0
        self._answering: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Send the state, then answer calls until the connection ends."""
        self.send_event(self._program.state())
        try:
            while (message := await read_frame(self._reader, _DECODER)) is not None:
                if isinstance(message, Call):
                    task = asyncio.get_running_loop().create_task(self._answer(message))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                elif isinstance(message, Tell):
                    self._program.receive(message.body)
                else:
                    self._program.receive_table(message.body)
        except FrameError as error:
            log.warning("the relay sent what is no message: %s", error)
        finally:
            for task in tuple(self._answering):
                task.cancel()

    def send_event(self, body: bytes) -> None:
        self._sent += 1
        self._write(NodeEvent("", self._sent, body))

    def close(self) -> None:
        self._writer.close()

    async def _answer(self, call: Call) -> None:
        try:
            async with asyncio.timeout(call.seconds):
                answer = await self._program.answer(call.body)
        except TimeoutError:
            self._write(Failure(call.number, "timeout"))
        else:
            self._write(Answer(call.number, answer))

    def _write(self, message: Answer | Failure | NodeEvent) -> None:
        if self._writer.is_closing():
            return
        self._writer.write(to_frame(message))
        if self._writer.transport.get_write_buffer_size() > MAX_WAITING:
            log.warning("the relay does not read; its connection is closed")
            self._writer.transport.abort()
