"""The interface of an engine's request placement: the steps at a replica before a request is sent to it.

A placement may choose a slot for the request, let the engine restore the state of a prompt's beginning into it, or wait
until another request has computed an equal beginning. The gateway knows only this interface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: The priority of a request that names none.
NORMAL = 1


class AskEngine(Protocol):
    """Sends a request to the replica and returns the status and the body of its answer."""

    async def __call__(self, path: str, query: bytes, body: bytes) -> tuple[int, bytes]: ...


class Placed(Protocol):
    """A request that has its place at a replica."""

    @property
    def body(self) -> bytes:
        """The body to send."""
        ...

    def end(self, *, complete: bool) -> None:
        """The answer has ended; `complete`: it was read to its end. Called once."""
        ...


class RequestPlacement(Protocol):
    """Places the requests of one replica; used from one event loop, so it needs no lock."""

    async def place(self, path: str, body: bytes, client: str, ask: AskEngine, priority: int = NORMAL) -> Placed | None:
        """Place a request; None: it is sent as it is.

        Args:
            client: the key or the address of the client.
            priority: of requests that wait for a slot, one with a lower number comes first.
        """
        ...


@dataclass(frozen=True, slots=True)
class StateFigures:
    """The counts of one model's saved states since the server's start, and their size now."""

    saved: int = 0
    """States that engines have written."""
    restored: int = 0
    """States that engines have read."""
    direct: int = 0
    """Requests whose beginning was in the slot that they got."""
    waited: int = 0
    """Requests that waited until another one had computed an equal beginning."""
    states: int = 0
    """States in memory."""
    bytes: int = 0
    """Bytes of the states in memory."""
    disk_bytes: int = 0


class ModelStates(Protocol):
    """The saved states of one model, which all its replicas on this machine use."""

    @property
    def figures(self) -> StateFigures: ...

    def placement(self, slots: int) -> RequestPlacement:
        """The placement of a new replica with this number of slots."""
        ...

    def set_memory(self, maximum: int) -> None:
        """Set the maximum size of the states in memory, because the number of replicas has changed."""
        ...

    def drop_memory(self) -> None:
        """Delete the states in memory, because no replica of the model runs; those on disk remain."""
        ...


@dataclass(frozen=True, slots=True)
class StateLimits:
    """The place and the limits of one model's saved states."""

    memory: Path
    """The folder in memory to which the engines write."""
    disk: Path
    """The folder for the states that are used most."""
    memory_bytes: int
    disk_bytes: int
    wait_seconds: float
    """Maximum time for which a request waits until another one has computed an equal beginning."""
    by_client: bool
    """Whether a client gets only states of its own requests."""


#: Makes the saved states of one model.
MakeStates = Callable[[StateLimits], ModelStates]
