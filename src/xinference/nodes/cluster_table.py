"""The table that the supervisor sends to all nodes, the newest to each node that joins."""

from __future__ import annotations

import msgspec


class ClusterTable(msgspec.Struct, frozen=True):
    """What each node needs to know of the others."""

    removed: tuple[str, ...] = ()
    """The nodes whose certificates are refused."""
    gateway: bytes | None = None
    """Routes and keys for the gateways of workers, in the form of `gateway.node_gateway`; None: they are unchanged."""
    ended: tuple[str, ...] = ()
    """The nodes whose workers end now, with their engines."""


class RemovedNodes:
    """The certificates that a door refuses: those of removed nodes, whatever their serial numbers."""

    def __init__(self) -> None:
        self.nodes: frozenset[str] = frozenset()

    def __contains__(self, peer: object) -> bool:
        return isinstance(peer, tuple) and peer[0] in self.nodes


def decode_table(data: bytes) -> ClusterTable:
    """Read a table.

    Raises:
        msgspec.DecodeError: it is damaged.
    """
    return _DECODER.decode(data)


_DECODER = msgspec.msgpack.Decoder(ClusterTable)
