"""A fabric within one process: the contract of `fabric.Fabric` for tests, with links that can be cut and mended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from xinference.fabric.fabric import Event, NodeGoneError, NodeProgram, NoReservationError, Share
from xinference.fabric.inbox import Inbox


class MemoryFabric(Inbox):
    """Links to node programs in this process.

    Args:
        gpus: GPUs that each node has for reservations; a node that is not named has none.
    """

    def __init__(self, gpus: dict[str, int] | None = None) -> None:
        super().__init__()
        self._ends: dict[str, _End] = {}
        self._table: bytes | None = None
        self._free_gpus = dict(gpus or {})

    def join(self, node: str, program: NodeProgram) -> MemoryUplink:
        """Connect a node; a node of the same name that is connected already loses its link."""
        if node in self._ends:
            self.cut(node)
        end = self._ends[node] = _End(program)
        self._connect(node, end)
        return MemoryUplink(self, node, end)

    def cut(self, node: str) -> None:
        """Take the link down: each open call ends with `NodeGoneError`, and events are lost."""
        end = self._ends[node]
        if not end.is_up:
            return
        end.is_up = False
        self.add_link(node, is_up=False)
        for call in tuple(end.calls):
            call.cancel()

    def mend(self, node: str) -> None:
        """Bring the link up again."""
        end = self._ends[node]
        if not end.is_up:
            self._connect(node, end)

    async def call(self, node: str, message: bytes, seconds: float) -> bytes:
        """See `fabric.Fabric.call`."""
        end = self._ends.get(node)
        if end is None or not end.is_up:
            raise NodeGoneError(node)
        call = asyncio.ensure_future(end.program.answer(message))
        end.calls.add(call)
        try:
            return await asyncio.wait_for(asyncio.shield(call), seconds)
        except asyncio.CancelledError:
            if not end.is_up and call.cancelled():
                raise NodeGoneError(node) from None
            raise
        finally:
            end.calls.discard(call)
            call.cancel()

    def tell(self, node: str, message: bytes) -> None:
        """See `fabric.Fabric.tell`."""
        end = self._ends.get(node)
        if end is not None and end.is_up:
            end.program.receive(message)

    def publish(self, table: bytes) -> None:
        """See `fabric.Fabric.publish`."""
        self._table = table
        for end in self._ends.values():
            if end.is_up:
                end.program.receive_table(table)

    async def reserve(self, shares: Sequence[Share]) -> MemoryReservation:
        """See `fabric.Fabric.reserve`."""
        wanted: dict[str, int] = {}
        for share in shares:
            wanted[share.node] = wanted.get(share.node, 0) + share.gpus
        for node, count in wanted.items():
            if count > (free := self._free_gpus.get(node, 0)):
                raise NoReservationError(f"The node {node} has {free} free GPUs, and {count} are needed.")
        for node, count in wanted.items():
            self._free_gpus[node] = self._free_gpus.get(node, 0) - count
        return MemoryReservation(self._free_gpus, wanted)

    def send(self, node: str, end: _End, body: bytes) -> None:
        """Send an event of a node to the supervisor."""
        if end.is_up and self._ends.get(node) is end:
            end.sent += 1
            self.add_event(node, Event(end.sent, body))

    def _connect(self, node: str, end: _End) -> None:
        end.is_up, end.sent = True, 0
        if self._table is not None:
            end.program.receive_table(self._table)
        self.add_link(node, is_up=True)
        self.send(node, end, end.program.state())


@dataclass(eq=False)
class _End:
    program: NodeProgram
    is_up: bool = False
    sent: int = 0
    calls: set[asyncio.Future[bytes]] = field(default_factory=set)


@dataclass(frozen=True)
class MemoryUplink:
    """A node's end of a link in memory."""

    fabric: MemoryFabric
    node: str
    _end: _End

    def send(self, body: bytes) -> None:
        """See `fabric.Uplink.send`."""
        self.fabric.send(self.node, self._end, body)


@dataclass
class MemoryReservation:
    """GPUs of nodes in memory."""

    _free: dict[str, int]
    _taken: dict[str, int]

    async def release(self) -> None:
        """See `fabric.Reservation.release`."""
        for node, count in self._taken.items():
            self._free[node] = self._free.get(node, 0) + count
        self._taken = {}
