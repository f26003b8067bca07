"""The interface of the link between the supervisor and its nodes, for both ends.

A message is bytes here: `nodes.messages` encodes it. No request and no weight file goes over a fabric; logs are read
over it in small pieces.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

#: Maximum bytes of one message in either direction.
MAX_MESSAGE = 4 * 1024 * 1024


class NodeGoneError(Exception):
    """The link to a node is down, or went down before the node had answered."""

    def __init__(self, node: str) -> None:
        super().__init__(f"The link to the node {node} is down.")
        self.node = node


class NoReservationError(Exception):
    """The cluster cannot reserve what was asked for; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a node says unasked."""

    number: int
    """Rises by one for each event of a node since its link came up; 1 is the node's whole state."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """The link to a node came up or went down."""

    node: str
    is_up: bool


@dataclass(frozen=True, slots=True)
class Share:
    """What a replica, or one rank of it, takes of a node."""

    node: str
    gpus: int
    cpus: float = 0.0
    memory_bytes: int = 0


class Reservation(Protocol):
    """Resources that other programs of the cluster leave alone until the reservation is released."""

    async def release(self) -> None:
        """Give the resources back; a second call does nothing."""
        ...


class Fabric(Protocol):
    """The supervisor's end of the links to all nodes."""

    async def call(self, node: str, message: bytes, seconds: float) -> bytes:
        """Ask a node and wait for its answer.

        Raises:
            NodeGoneError: the link is down, or went down before the answer came.
            TimeoutError: no answer came within `seconds`, while the link was up.
        """
        ...

    def tell(self, node: str, message: bytes) -> None:
        """Send a message that has no answer; it is lost if the link is down."""
        ...

    def publish(self, table: bytes) -> None:
        """Send the table of routes to all nodes. The newest replaces all others; a node that joins gets it first."""
        ...

    def events(self) -> AsyncIterator[tuple[str, Event]]:
        """The events of all nodes, those of each node in order. There is one reader."""
        ...

    def links(self) -> AsyncIterator[Link]:
        """Each change of a link, in order. There is one reader."""
        ...

    async def hand_over(self, take_event: Callable[[str, Event], None], take_link: Callable[[Link], None]) -> None:
        """Call a function with each event and one with each change of a link, until cancelled: the reader of both."""
        ...

    async def reserve(self, shares: Sequence[Share]) -> Reservation:
        """Reserve all shares or none, so that other programs of the cluster do not use them.

        Raises:
            NoReservationError: the cluster has less.
        """
        ...


class NodeProgram(Protocol):
    """What a node does with the messages of the supervisor."""

    async def answer(self, message: bytes) -> bytes:
        """Answer a call."""
        ...

    def receive(self, message: bytes) -> None:
        """Take a message that has no answer."""
        ...

    def receive_table(self, table: bytes) -> None:
        """Take the newest table of routes."""
        ...

    def state(self) -> bytes:
        """The whole state of the node: the first event after each connection."""
        ...


class Uplink(Protocol):
    """A node's end of its link."""

    def send(self, body: bytes) -> None:
        """Send an event; it is lost if the link is down, since the whole state follows when the link is up again."""
        ...
