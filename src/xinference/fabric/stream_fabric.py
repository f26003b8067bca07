"""A fabric over one stream for each node: the node has connected to the supervisor and is authenticated."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import msgspec

from xinference.fabric.fabric import Event, NodeGoneError, NoReservationError, Share
from xinference.fabric.frames import Answer, Call, Failure, FrameError, NodeEvent, Table, Tell, read_frame, write_frame
from xinference.fabric.inbox import Inbox
from xinference.fabric.questions import Questions

log = logging.getLogger(__name__)
_DECODER = msgspec.msgpack.Decoder(Answer | Failure | NodeEvent)


class StreamFabric(Inbox):
    """The supervisor's end of the links; see `fabric.Fabric`. `serve` takes the stream of a node."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: dict[str, _End] = {}
        self._table: bytes | None = None
        self._questions = Questions()

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
                else:
                    self._questions.answer(message, node)
        except FrameError as error:
            log.warning("the node %s sent what is no message: %s", node, error)
        except OSError as error:  # the kernel has given the connection up: the node's machine is gone
            log.info("the link to the node %s broke: %s", node, error)
        finally:
            self._end(node, end)

    async def wait_ended(self, nodes: Collection[str]) -> None:
        """Wait until no node of these is linked."""
        while ends := [self._ends[node] for node in nodes if node in self._ends]:
            await ends[0].ended.wait()

    def cut(self, node: str) -> None:
        """Close the link of a node, which may dial again."""
        if (end := self._ends.get(node)) is not None:
            self._end(node, end)

    async def call(self, node: str, message: bytes, seconds: float) -> bytes:
        """See `fabric.Fabric.call`."""
        end = self._ends.get(node)
        if end is None:
            raise NodeGoneError(node)
        return await self._questions.call(node, lambda number: end.write(Call(number, node, message, seconds)), seconds)

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
        end.ended.set()
        self.add_link(node, is_up=False)
        self._questions.end(node)


class NoReservation:
    """A `fabric.Reservation` of nothing."""

    async def release(self) -> None:
        """See `fabric.Reservation.release`."""


@dataclass(eq=False)
class _End:
    writer: asyncio.StreamWriter
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, message: Call | Tell | Table) -> None:
        write_frame(self.writer, message)
