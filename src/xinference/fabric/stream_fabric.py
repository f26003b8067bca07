"""A fabric over one stream for each node: the node has connected to the supervisor and is authenticated."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import msgspec

from xinference.fabric.fabric import Event, Link, NodeGoneError, NoReservationError, Share
from xinference.fabric.frames import Answer, Call, Failure, FrameBuffer, FrameError, NodeEvent, Table, Tell, write_frame
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
        self._take_event: Callable[[str, Event], None] | None = None
        self._take_link: Callable[[Link], None] | None = None

    # -- for the reader of events and links -------------------------------------------------------------------

    async def hand_over(self, take_event: Callable[[str, Event], None], take_link: Callable[[Link], None]) -> None:
        """See `fabric.Fabric.hand_over`. Events are handed over as they arrive: a task would double their cost."""
        self._take_event, self._take_link = take_event, take_link
        self._hand_over_changes()
        while not self._events.empty():
            take_event(*self._events.get_nowait())
        try:
            await asyncio.Event().wait()
        finally:
            self._take_event = self._take_link = None

    def add_event(self, node: str, event: Event) -> None:
        """Take an event of a node."""
        if self._take_event is None:
            super().add_event(node, event)
        else:
            self._hand_over_changes()  # what came before
            self._take_event(node, event)

    def add_link(self, node: str, *, is_up: bool) -> None:
        """Take a change of a link; it is not handed over at once, because the caller is changing the links."""
        super().add_link(node, is_up=is_up)
        if self._take_link is not None:
            asyncio.get_running_loop().call_soon(self._hand_over_changes)

    def _hand_over_changes(self) -> None:
        while self._take_link is not None and not self._links.empty():
            self._take_link(self._links.get_nowait())

    # -- the links --------------------------------------------------------------------------------------------

    async def serve(self, node: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use a stream as the link of `node` until it ends; an earlier link of the same node is closed."""
        if (earlier := self._ends.get(node)) is not None:
            self._end(node, earlier)
        end = self._ends[node] = _End(writer)
        self.add_link(node, is_up=True)
        try:
            if self._table is not None:
                end.write(Table(self._table))
            await self._read(node, end, reader)
        except OSError as error:  # the kernel has given the connection up: the node's machine is gone
            log.info("the link to the node %s broke: %s", node, error)
        finally:
            self._end(node, end)

    async def _read(self, node: str, end: _End, reader: asyncio.StreamReader) -> None:
        """Take the messages of a node until its link ends."""
        frames = _NodeFrames(self._take, node, end)
        end.writer.transport.set_protocol(frames)
        if not end.writer.is_closing():
            reader.feed_eof()  # it gets nothing more
            frames.data_received(await reader.read())
            await end.ended.wait()

    def _take(self, node: str, end: _End, messages: Sequence[Answer | Failure | NodeEvent]) -> None:
        """Take messages of a node, and nothing from a link that has ended."""
        for message in messages:
            if self._ends.get(node) is not end:
                return
            if isinstance(message, NodeEvent):
                self.add_event(node, Event(message.number, message.body))
            else:
                self._questions.answer(message, node)

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


class _NodeFrames(asyncio.Protocol):
    """The messages of a node: without a task that reads them, a status costs two turns of the event loop less."""

    def __init__(
        self,
        take: Callable[[str, _End, Sequence[Answer | Failure | NodeEvent]], None],
        node: str,
        end: _End,
    ) -> None:
        self._take = take
        self._node = node
        self._end = end
        self._frames = FrameBuffer(_DECODER)

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._frames.take(data)
        except FrameError as error:
            log.warning("the node %s sent what is no message: %s", self._node, error)
            self._end.ended.set()
            return
        self._take(self._node, self._end, messages)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:  # the kernel has given the connection up: the node's machine is gone
            log.info("the link to the node %s broke: %s", self._node, exc)
        self._end.ended.set()
