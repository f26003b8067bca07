"""The place of a replica: the machine, and the devices on it. Plain values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xinference.hosts import LOCAL_NODE


@dataclass(frozen=True)
class Place:
    """Where one replica runs."""

    node_id: str = LOCAL_NODE
    devices: tuple[int, ...] = ()
    """Indices of the node's GPUs; empty: CPU."""
    ranks: tuple[Place, ...] = ()
    """The places of the further ranks, if several nodes compute one replica: rank 1, rank 2 and so on."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that compute the replica, by rank."""
        return (self.node_id, *(rank.node_id for rank in self.ranks))


Places = tuple[Place, ...]
"""The place of each replica by its number; a replica without an entry is on the CPU of the server's machine."""
_CPU_HERE = Place()


def local_places(devices: tuple[tuple[int, ...], ...]) -> Places:
    """The places of replicas on the server's own machine, by the devices of each."""
    return shortest(Place(LOCAL_NODE, group) for group in devices)


def place_of(places: Places, number: int) -> Place:
    """The place of the replica with this number."""
    return places[number] if number < len(places) else _CPU_HERE


def with_place(places: Places, number: int, place: Place) -> Places:
    """The places with another one for the replica with this number."""
    size = max(len(places), number + 1)
    return shortest(place if n == number else place_of(places, n) for n in range(size))


def shortest(places: Iterable[Place]) -> Places:
    """The places; empty if all are the CPU of the server's machine, as a plan has them that names no place."""
    listed = tuple(places)
    return () if all(place == _CPU_HERE for place in listed) else listed
