"""The relay: the actor on each node that passes messages between Ray and the worker's Unix socket.

It keeps no state: after its death, or that of its raylet, a new one is created, which reads the node's whole state.
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from xinference.fabric.frames import Answer, Call, Failure, FrameError, NodeEvent, Table, Tell, read_frame, to_frame

#: Names the worker's socket in the environment of its raylet, which the actors of the node inherit.
SOCKET_VARIABLE = "XINFERENCE_NODE_SOCKET"
#: Maximum events that wait for the bridge; then the link is given up, and a new one begins with the state.
MAX_EVENTS = 10_000
_DECODER = msgspec.msgpack.Decoder(Answer | Failure | NodeEvent)


class Relay:
    """One end on the worker's socket, the other in Ray's calls."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[NodeEvent | None] = asyncio.Queue()
        self._calls: dict[int, asyncio.Future[Answer | Failure]] = {}
        self._number = 0

    async def attach(self) -> None:
        """Connect to the worker, anew if there is a connection: the first event is then the node's whole state.

        Raises:
            OSError: no worker listens.
        """
        self._detach()
        path = os.environ[SOCKET_VARIABLE]
        reader, self._writer = await asyncio.open_unix_connection(path)
        self._events = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(reader, self._events))

    async def events(self) -> list[tuple[int, bytes]] | None:
        """Wait for events and return them; None: the worker has closed the connection."""
        first = await self._events.get()
        batch = [first]
        while not self._events.empty():
            batch.append(self._events.get_nowait())
        found = [(event.number, event.body) for event in batch if event is not None]
        if None in batch:
            if not found:
                return None
            self._events.put_nowait(None)
        return found

    async def call(self, body: bytes, seconds: float) -> tuple[str, bytes]:
        """Ask the worker; returns ``("", answer)``, or the reason of a failure."""
        if self._writer is None or self._writer.is_closing():
            return "gone", b""
        self._number += 1
        number = self._number
        self._calls[number] = future = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(to_frame(Call(number, "", body, seconds)))
            # The worker ends a call that takes too long; this is for a worker that does nothing at all.
            async with asyncio.timeout(seconds + 1):
                answer = await future
        except TimeoutError:
            return "timeout", b""
        finally:
            self._calls.pop(number, None)
        return (answer.reason, b"") if isinstance(answer, Failure) else ("", answer.body)

    async def tell(self, body: bytes) -> None:
        """Pass a message on."""
        if self._writer is not None:
            self._writer.write(to_frame(Tell("", body)))

    async def table(self, body: bytes) -> None:
        """Pass the table of routes on."""
        if self._writer is not None:
            self._writer.write(to_frame(Table(body)))

    async def _read(self, reader: asyncio.StreamReader, events: asyncio.Queue[NodeEvent | None]) -> None:
        try:
            while (message := await read_frame(reader, _DECODER)) is not None:
                if not isinstance(message, NodeEvent):
                    future = self._calls.get(message.number)
                    if future is not None and not future.done():
                        future.set_result(message)
                elif events.qsize() < MAX_EVENTS:
                    events.put_nowait(message)
                else:
                    break
        except FrameError:
            pass  # the connection ends like one that the worker closes
        finally:
            events.put_nowait(None)
            self._fail_calls()
            if self._writer is not None:
                self._writer.close()

    def _detach(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.close()
        self._fail_calls()

    def _fail_calls(self) -> None:
        for number, future in self._calls.items():
            if not future.done():
                future.set_result(Failure(number, "gone"))
