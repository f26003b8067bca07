"""The fabric over Ray: `fabric.Fabric` by messages to the bridge, the process that is Ray's driver."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from xinference.fabric.fabric import Event, NodeGoneError, NoReservationError, Share
from xinference.fabric.frames import (
    Answer,
    Bundle,
    Call,
    Failure,
    LinkChange,
    NodeEvent,
    Release,
    Reserve,
    Table,
    Tell,
)
from xinference.fabric.inbox import Inbox
from xinference.fabric.questions import Questions
from xinference.fabric.ray_process import RayProcess

log = logging.getLogger(__name__)
_DECODER = msgspec.msgpack.Decoder(Answer | Failure | NodeEvent | LinkChange)


class RayFabric(Inbox):
    """Links to the workers of a Ray cluster.

    Args:
        address: of Ray's head, ``host:port``.
        environment: of the bridge: Ray's token and certificates.
        log_file: for what the bridge and Ray's driver print.
    """

    def __init__(self, address: str, environment: Mapping[str, str], log_file: Path) -> None:
        super().__init__()
        self._up: set[str] = set()
        self._questions = Questions()
        self._table: bytes | None = None
        self._bridge = RayProcess(
            "xinference.fabric.ray_bridge", address, environment, log_file, _DECODER, self._receive,
            self._note_started, self._note_ended,
        )  # fmt: skip

    @property
    def bridge_pid(self) -> int | None:
        return self._bridge.pid

    def start(self) -> None:
        """Keep a bridge running from now on."""
        self._bridge.start()

    async def close(self) -> None:
        """End the bridge. Relays stay: they belong to the nodes."""
        await self._bridge.close()

    async def call(self, node: str, message: bytes, seconds: float) -> bytes:
        """See `fabric.Fabric.call`."""
        if node not in self._up:
            raise NodeGoneError(node)
        return await self._questions.call(
            node, lambda number: self._send(Call(number, node, message, seconds)), seconds
        )

    def tell(self, node: str, message: bytes) -> None:
        """See `fabric.Fabric.tell`."""
        if node in self._up:
            self._send(Tell(node, message))

    def publish(self, table: bytes) -> None:
        """See `fabric.Fabric.publish`."""
        self._table = table
        self._send(Table(table))

    async def reserve(self, shares: Sequence[Share]) -> RayReservation:
        """See `fabric.Fabric.reserve`."""
        if not self._bridge.is_running:
            raise NoReservationError("Ray cannot be asked now: its head is not reached.")
        bundles = [Bundle(share.node, share.gpus, share.cpus, share.memory_bytes) for share in shares]
        answer = await self._questions.ask("", lambda number: self._send(Reserve(number, bundles)), 60)
        if isinstance(answer, Failure):
            raise NoReservationError(answer.text or "Ray cannot be asked now: its head is not reached.")
        return RayReservation(self, answer.number)

    def release(self, number: int) -> None:
        """Give a reservation back."""
        self._send(Release(number))

    def _note_started(self) -> None:
        if self._table is not None:
            self._send(Table(self._table))

    def _note_ended(self) -> None:
        for node in sorted(self._up):
            self._set_link(node, is_up=False)

    def _receive(self, message: Answer | Failure | NodeEvent | LinkChange) -> None:
        if isinstance(message, NodeEvent):
            self.add_event(message.node, Event(message.number, message.body))
        elif isinstance(message, LinkChange):
            self._set_link(message.node, is_up=message.is_up)
        else:
            self._questions.answer(message)

    def _set_link(self, node: str, *, is_up: bool) -> None:
        if (node in self._up) == is_up:
            return
        (self._up.add if is_up else self._up.discard)(node)
        self.add_link(node, is_up=is_up)
        if not is_up:
            self._questions.end(node)

    def _send(self, message: Call | Tell | Table | Reserve | Release) -> None:
        self._bridge.send(message)


@dataclass
class RayReservation:
    """A placement group of Ray."""

    _fabric: RayFabric
    _number: int
    _released: bool = False

    async def release(self) -> None:
        """See `fabric.Reservation.release`."""
        if not self._released:
            self._released = True
            self._fabric.release(self._number)
