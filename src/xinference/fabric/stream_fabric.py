"""A fabric over one stream for each node: the node has dialled the supervisor, which knows who it is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from xinference.fabric.fabric import Event, NodeGoneError, NoReservationError, Share
from xinference.fabric.frames import Answer, Call, Failure, FrameError, NodeEvent, Table, Tell, read_frame, to_frame
from xinference.fabric.inbox import Inbox
from xinference.fabric.node_connection import MAX_WAITING

log = logging.getLogger(__name__)
_DECODER = msgspec.msgpack.Decoder(Answer | Failure | NodeEvent)


class StreamFabric(Inbox):
    """The supervisor's end of the links; see `fabric.Fabric`. `serve` takes the stream of a node."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: dict[str, _End] = {}
        self._table: bytes | None = None
        self._numbers = itertools.count(1)

    async def serve(self, node: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use a stream as the link of `node` until it ends; an earlier link of the same node is closed."""
        if (earlier := self._ends.get(node)) is not None:
            self._end(node, earlier)
        end = self._ends[node] = _End(writer)
        self.add_link(node, is_up=True)
        try:
            if self._table is not None:
                end.write(Table(self._table))
            while (message := await read_frame(reader, _DECODER)) is not None and self._ends.get(node) is end:
                if isinstance(message, NodeEvent):
                    self.add_event(node, Event(message.number, message.body))
                elif (call := end.calls.get(message.number)) is not None and not call.done():
                    call.set_result(message)
        except FrameError as error:
            log.warning("the node %s sent what is no message: %s", node, error)
        except OSError as error:  # the kernel has given the connection up: the node's machine is gone
            log.info("the link to the node %s broke: %s", node, error)
        finally:
            self._end(node, end)

    def cut(self, node: str) -> None:
        """Close the link of a node, which may dial again."""
        if (end := self._ends.get(node)) is not None:
            self._end(node, end)

    async def call(self, node: str, message: bytes, seconds: float) -> bytes:
        """See `fabric.Fabric.call`."""
        end = self._ends.get(node)
        if end is None:
            raise NodeGoneError(node)
        number = next(self._numbers)
        future: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
        end.calls[number] = future
        try:
            end.write(Call(number, node, message, seconds))
            # The node ends a call in time; this is for a node that does nothing at all.
            answer = await asyncio.wait_for(future, seconds + 2)
        finally:
            end.calls.pop(number, None)
        if isinstance(answer, Answer):
            return answer.body
        if answer.reason == "timeout":
            raise TimeoutError
        raise NodeGoneError(node)

    def tell(self, node: str, message: bytes) -> None:
        """See `fabric.Fabric.tell`."""
        if (end := self._ends.get(node)) is not None:
            end.write(Tell(node, message))

    def publish(self, table: bytes) -> None:
        """See `fabric.Fabric.publish`."""
        self._table = table
        for end in self._ends.values():
            end.write(Table(table))

    async def reserve(self, shares: Sequence[Share]) -> NoReservation:
        """See `fabric.Fabric.reserve`. Nobody else schedules on these nodes, so there is nobody to be told."""
        for share in shares:
            if share.node not in self._ends:
                raise NoReservationError(f"The link to the node {share.node} is down.")
        return NoReservation()

    def _end(self, node: str, end: _End) -> None:
        with contextlib.suppress(OSError):
            end.writer.close()
        if self._ends.get(node) is not end:
            return
        del self._ends[node]
        self.add_link(node, is_up=False)
        for number, call in end.calls.items():
            if not call.done():
                call.set_result(Failure(number, "gone"))


class NoReservation:
    """A `fabric.Reservation` of nothing."""

    async def release(self) -> None:
        """See `fabric.Reservation.release`."""


@dataclass(eq=False)
class _End:
    writer: asyncio.StreamWriter
    calls: dict[int, asyncio.Future[Answer | Failure]] = field(default_factory=dict)

    def write(self, message: Call | Tell | Table) -> None:
        if self.writer.is_closing():
            return
        self.writer.write(to_frame(message))
        if self.writer.transport.get_write_buffer_size() > MAX_WAITING:
            log.warning("a node does not read; its link is closed")
            self.writer.transport.abort()
