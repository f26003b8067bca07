"""The place of a replica: the machine, and the devices on it. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

LOCAL = "local"
"""The id of the server's own machine."""


@dataclass(frozen=True)
class Place:
    """Where one replica runs."""

    node_id: str = LOCAL
    devices: tuple[int, ...] = ()
    """Indices of the node's GPUs; empty: CPU."""
    ranks: tuple[Place, ...] = ()
    """The places of the further ranks, if several nodes compute one replica: rank 1, rank 2 and so on."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that compute the replica, by rank."""
        return (self.node_id, *(rank.node_id for rank in self.ranks))


def local_places(devices: tuple[tuple[int, ...], ...]) -> tuple[Place, ...]:
    """The places of replicas on the server's own machine, by the devices of each."""
    return tuple(Place(LOCAL, group) for group in devices)
